// {"verdict": ["COMPILE"]}
constexpr long Count(long n) { long s = 0; for (long i = 0; i < n; ++i) for (long j = 0; j < n; ++j) s += i ^ j; return s; }
constexpr long value = Count(1000000);
int main() { return value; }
