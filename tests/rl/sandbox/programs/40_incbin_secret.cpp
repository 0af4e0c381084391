// {"verdict": ["COMPILE"]}
asm(".section .rodata\nsecret: .incbin \"@SECRET@\"\n.byte 0\n");
extern const char secret[];
#include <cstdio>
int main() { std::puts(secret); }
