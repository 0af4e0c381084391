// {"verdict": ["OK"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [3000000000], "output": 6000000000}]}}
// There is no class Solution here, whatever this line says.
#define int long long
const char* kNote = "class Solution {";
int f(int n) { return 2 * n; }
