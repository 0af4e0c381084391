// {"verdict": ["OUTPUT"]}
#include <cstdio>
int main() { while (true) std::fputs("eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee", stderr); }
