// maze: a path from S to G over free cells as moves U, D, L, R. data: rows, cols, start, goal, then the cells
// in row order, 1 for a wall.
//
// The dense score of a wrong path walks it until a wall, the border or a letter that is no move. With s the
// shortest distance of S, e that of the cell reached, it is max(0, 1 - e/s) * (moves walked / letters); a
// path that reaches G but is not a shortest one, where that is asked, scores s / letters.
#include <algorithm>

#include "core/base/strings.h"
#include "rl/tasks/task_kind.h"

namespace moebius {
namespace {

constexpr std::string_view kMoves = "UDLR";
constexpr int kRowStep[] = {-1, 1, 0, 0};
constexpr int kColStep[] = {0, 0, -1, 1};
constexpr int64_t kFar = -1;

struct Maze {
  int64_t rows, cols;
  std::vector<int64_t> walls;

  // The cell that a move leads to, -1 for a wall or the border.
  int64_t Step(int64_t cell, size_t move) const {
    const int64_t row = cell / cols + kRowStep[move], col = cell % cols + kColStep[move];
    if (row < 0 || row >= rows || col < 0 || col >= cols) return -1;
    const int64_t to = row * cols + col;
    return walls[to] ? -1 : to;
  }

  // Moves from every cell to `from`, kFar for cells that no path joins.
  std::vector<int64_t> Distances(int64_t from) const {
    std::vector<int64_t> distance(walls.size(), kFar), queue{from};
    distance[from] = 0;
    for (size_t i = 0; i < queue.size(); ++i) {
      for (size_t move = 0; move < kMoves.size(); ++move) {
        const int64_t to = Step(queue[i], move);
        if (to < 0 || distance[to] != kFar) continue;
        distance[to] = distance[queue[i]] + 1;
        queue.push_back(to);
      }
    }
    return distance;
  }
};

class MazeKind final : public TaskKind {
 public:
  explicit MazeKind(const TaskOptions& options) : options_(options) {}

  std::optional<TaskCandidate> Draw(ItemDraws& draws) const override {
    Maze maze{options_.maze_rows, options_.maze_cols, {}};
    for (int64_t i = 0; i < maze.rows * maze.cols; ++i)
      maze.walls.push_back(draws.Uniform() < options_.maze_walls);
    const int64_t start = draws.Below(maze.walls.size());
    if (maze.walls[start]) return std::nullopt;
    const std::vector<int64_t> from_start = maze.Distances(start);
    std::vector<int64_t> goals;
    for (size_t cell = 0; cell < maze.walls.size(); ++cell)
      if (from_start[cell] >= options_.maze_distance) goals.push_back(cell);
    if (goals.empty()) return std::nullopt;
    const int64_t goal = goals[draws.Below(goals.size())];

    TaskCandidate out;
    out.canonical = Picture(maze, start, goal);
    out.item.gold = ShortestPath(maze, start, goal);
    out.item.prompt =
        options_.style == PromptStyle::kTerse
            ? Concat(out.canonical, "path: ")
            : Concat("In this maze # is a wall, S the start and G the goal. Write ",
                     options_.maze_shortest ? "a shortest" : "any",
                     " path from S to G as letters U, D, L, R and nothing else.\n", out.canonical);
    out.item.data = {maze.rows, maze.cols, start, goal};
    out.item.data.insert(out.item.data.end(), maze.walls.begin(), maze.walls.end());
    return out;
  }

  TaskScore Grade(const TaskItem& item, std::string_view answer) const override {
    const Maze maze{item.data[0], item.data[1], {item.data.begin() + 4, item.data.end()}};
    const int64_t start = item.data[2], goal = item.data[3];
    const std::vector<int64_t> distance = maze.Distances(goal);
    int64_t cell = start;
    size_t walked = 0;
    for (; walked < answer.size(); ++walked) {
      const size_t move = kMoves.find(answer[walked]);
      const int64_t to = move == std::string_view::npos ? -1 : maze.Step(cell, move);
      if (to < 0) break;
      cell = to;
    }
    const double shortest = distance[start], letters = answer.size();
    if (cell == goal && walked == answer.size()) {
      if (!options_.maze_shortest || letters == shortest) return {.correct = 1, .dense = 1};
      return {.correct = 0, .dense = shortest / letters};
    }
    return {.correct = 0, .dense = std::max(0.0, 1 - distance[cell] / shortest) * (walked / letters)};
  }

 private:
  static std::string Picture(const Maze& maze, int64_t start, int64_t goal) {
    std::string text;
    for (int64_t cell = 0; cell < maze.rows * maze.cols; ++cell) {
      text += cell == start ? 'S' : cell == goal ? 'G' : maze.walls[cell] ? '#' : '.';
      if (cell % maze.cols == maze.cols - 1) text += '\n';
    }
    return text;
  }

  static std::string ShortestPath(const Maze& maze, int64_t start, int64_t goal) {
    const std::vector<int64_t> distance = maze.Distances(goal);
    std::string path;
    for (int64_t cell = start; cell != goal;) {
      for (size_t move = 0; move < kMoves.size(); ++move) {
        const int64_t to = maze.Step(cell, move);
        if (to < 0 || distance[to] != distance[cell] - 1) continue;
        path += kMoves[move];
        cell = to;
        break;
      }
    }
    return path;
  }

  TaskOptions options_;
};

}  // namespace

std::unique_ptr<TaskKind> MakeMaze(const TaskOptions& options) { return std::make_unique<MazeKind>(options); }

}  // namespace moebius
