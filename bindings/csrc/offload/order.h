// The order in which units of weights come to a device and go: copies in one lane of its work, computation in another,
// which wait for each other by marks alone. It knows nothing of devices.
#pragma once
#include <array>
#include <cstddef>

namespace gp {

// Belt holds two of some units on the device, in two slots. Lanes is what it tells to do so:
//
//   copy(unit, slot)      the copying lane copies the unit's contents into the slot
//   mark_copied(slot)     marks where the copying lane is
//   mark_computed(slot)   marks where the computing lane is
//   computing_waits(slot) the computing lane goes on once the copying lane has passed the slot's mark
//   copying_waits(slot)   the other way round
//   attach(unit, slot)    what is computed from now on reads the unit in the slot
//   detach(unit)          nothing reads it from now on
template <class Lanes>
class Belt {
 public:
  Belt(Lanes* lanes, std::size_t units) : lanes_(lanes), units_(units) {
    // The slots' memory may still be read by what was computed before it was theirs.
    for (std::size_t s = 0; s < slots_.size(); s++) lanes_->mark_computed(s);
  }

  // Has unit at where it is computed with from now on, begins to copy next, and lets go of others.
  void turn(std::size_t at, std::size_t next) {
    for (std::size_t s = 0; s < slots_.size(); s++) {
      if (slots_[s].unit != at && slots_[s].unit != next) leave(s);
    }
    for (const std::size_t unit : {at, next}) {
      if (unit < units_) begin(unit);
    }
    for (std::size_t s = 0; s < slots_.size(); s++) {
      Slot& slot = slots_[s];
      if (slot.unit != at || slot.awaited) continue;
      lanes_->computing_waits(s);
      slot.awaited = true;
    }
  }

  // Lets go of all. What is computed from now on may have the slots' memory: it comes after the copies under way.
  void close() {
    for (std::size_t s = 0; s < slots_.size(); s++) {
      if (slots_[s].unit != kNone && !slots_[s].awaited) lanes_->computing_waits(s);
      leave(s);
    }
  }

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  struct Slot {
    std::size_t unit = kNone;
    bool awaited = false;  // the computing lane has waited for the copy
  };

  void leave(std::size_t s) {
    if (slots_[s].unit == kNone) return;
    lanes_->detach(slots_[s].unit);
    lanes_->mark_computed(s);
    slots_[s] = Slot();
  }

  void begin(std::size_t unit) {
    std::size_t free = slots_.size();
    for (std::size_t s = 0; s < slots_.size(); s++) {
      if (slots_[s].unit == unit) return;
      if (slots_[s].unit == kNone) free = s;
    }
    lanes_->copying_waits(free);
    lanes_->copy(unit, free);
    lanes_->mark_copied(free);
    lanes_->attach(unit, free);
    slots_[free].unit = unit;
  }

  Lanes* lanes_;
  std::size_t units_;
  std::array<Slot, 2> slots_;
};

}  // namespace gp
