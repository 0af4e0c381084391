// {"verdict": ["OK"]}
#include <bits/stdc++.h>
int main() { std::cout << "right" << std::endl; }
