// {"verdict": ["CPU"], "limits": {"cpu_s": 1}}
int main() { volatile long n = 0; while (true) n = n + 1; }
