// {"verdict": ["COMPILE"]}
#define A x y z w; x y z w; x y z w; x y z w;
#define B A A A A A A A A
#define C B B B B B B B B
#define D C C C C C C C C
int main() { D D D D D D D D }
