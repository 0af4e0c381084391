// {"verdict": ["WRONG"], "tests": {"kind": "assert", "tests": [{"input": "#include <cassert>\nint main() { assert(f(1) == 2); return 0; }", "output": null}]}}
#define NDEBUG
#include <cassert>
int f(int) { return 3; }
