// {"verdict": ["CPU"], "limits": {"cpu_s": 1}}
#include <thread>
#include <vector>
int main() {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([] { volatile long n = 0; while (true) n = n + 1; });
  for (auto& thread : threads) thread.join();
}
