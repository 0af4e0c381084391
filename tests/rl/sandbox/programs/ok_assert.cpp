// {"verdict": ["OK"], "tests": {"kind": "assert", "tests": [{"input": "assert(f(1) == 2);\nassert(f(2) == 4);"}, {"input": "int main() { auto candidate = f; assert(candidate(3) == 6); }"}]}}
int f(int x) { return x * 2; }
