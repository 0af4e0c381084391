// {"verdict": ["OK"], "tests": {"kind": "assert", "tests": [{"input": "assert(f(3000000000) == 6000000000);"}]}}
#define int long long
int f(int n) { return 2 * n; }
