// {"verdict": ["COMPILE"]}
#include "/dev/zero"
int main() {}
