// {"verdict": ["COMPILE"]}
asm(".rept 1000000\n.rept 1000\n.quad 1\n.endr\n.endr\n");
int main() {}
