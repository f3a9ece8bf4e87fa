#include "lanes.h"

#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "../../offload/order.h"

namespace {

constexpr int kUndefined = -1;

struct Operation {
  enum Kind { kCopy, kCompute, kRecord, kWait } kind;
  int unit, slot, mark;
  bool begun = false;
};

class Device {
 public:
  Device(unsigned seed, int forget) : random_(seed), forget_(forget) { content_.fill(kUndefined); }

  void copy(size_t unit, size_t slot) { add(kCopying, {Operation::kCopy, int(unit), int(slot), 0}); }
  void mark_copied(size_t slot) { record(kCopying, copied_[slot]); }
  void mark_computed(size_t slot) { record(kComputing, computed_[slot]); }
  void computing_waits(size_t slot) {
    if (forget_ != 1) add(kComputing, {Operation::kWait, 0, 0, copied_[slot]});
  }
  void copying_waits(size_t slot) {
    if (forget_ != 2) add(kCopying, {Operation::kWait, 0, 0, computed_[slot]});
  }
  void attach(size_t unit, size_t slot) { at_[int(unit)] = int(slot); }
  void detach(size_t unit) { at_.erase(int(unit)); }

  // Computes with a unit, where it is attached now.
  void compute(int unit) {
    const auto found = at_.find(unit);
    if (found == at_.end()) return fail("unit " + std::to_string(unit) + " is computed with where it is not");
    add(kComputing, {Operation::kCompute, unit, found->second, 0});
  }
  size_t attached() const { return at_.size(); }

  // Runs what there is, the lanes in turns of chance. Copies and computations take two turns each.
  void run() {
    while (failed.empty() && !(lanes_[0].empty() && lanes_[1].empty())) {
      const size_t first = random_() % 2;
      if (!step(first) && !step(1 - first)) fail("the lanes wait for each other");
    }
  }
  void fail(const std::string& why) {
    if (failed.empty()) failed = why;
  }

  std::string failed;

 private:
  enum Lane { kComputing, kCopying };

  void add(Lane lane, Operation op) { lanes_[lane].push_back(op); }
  void record(Lane lane, int& mark) {
    mark = int(passed_.size());
    passed_.push_back(false);
    add(lane, {Operation::kRecord, 0, 0, mark});
  }

  bool step(size_t lane) {
    if (lanes_[lane].empty()) return false;
    Operation& op = lanes_[lane].front();
    int& content = content_[size_t(op.slot)];
    switch (op.kind) {
      case Operation::kWait:
        if (!passed_[size_t(op.mark)]) return false;
        break;
      case Operation::kRecord: passed_[size_t(op.mark)] = true; break;
      case Operation::kCopy: content = op.begun ? op.unit : kUndefined; break;
      case Operation::kCompute:
        if (content != op.unit)
          fail("unit " + std::to_string(op.unit) + " is computed with, the slot holds " + std::to_string(content));
        break;
    }
    if ((op.kind == Operation::kCopy || op.kind == Operation::kCompute) && !op.begun) {
      op.begun = true;
      return true;
    }
    lanes_[lane].pop_front();
    return true;
  }

  std::mt19937 random_;
  int forget_;
  std::array<std::deque<Operation>, 2> lanes_;
  std::vector<bool> passed_;  // marks
  std::array<int, 2> copied_{}, computed_{}, content_{};
  std::map<int, int> at_;  // slots of units
};

}  // namespace

char* lanes_run(unsigned seed, int units, const int* turns, int n, int forget) {
  Device device(seed, forget);
  gp::Belt<Device> belt(&device, size_t(units));
  for (int i = 0; i < n; i++) {
    const int at = turns[2 * i], next = turns[2 * i + 1];
    belt.turn(size_t(at), size_t(next));
    if (at < units) device.compute(at);
    if (device.attached() > 2) device.fail("more than two units are on the device");
  }
  belt.close();
  if (device.attached() > 0) device.fail("a unit stays when all is closed");
  device.run();
  return device.failed.empty() ? nullptr : strdup(device.failed.c_str());
}
