// {"verdict": ["COMPILE"]}
int main( { return 0 }
