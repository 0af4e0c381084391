// {"verdict": ["COMPILE"]}
template <int N, int M> struct Bomb { static const int value = Bomb<N - 1, M>::value + Bomb<N - 1, M + (1 << (N % 30))>::value; };
template <int M> struct Bomb<0, M> { static const int value = M; };
int main() { return Bomb<40, 0>::value; }
