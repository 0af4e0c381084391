// {"verdict": ["COMPILE"]}
#include "@SECRET@"
#include "/etc/shadow"
int main() {}
