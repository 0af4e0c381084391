// {"verdict": ["RUNTIME", "COMPILE", "WRONG"]}
const char interpreter[] __attribute__((section(".interp"), used)) = "/nonexistent/loader";
int main() {}
