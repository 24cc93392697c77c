// Threads that share the pieces of a product. Whoever is free takes the next piece, so a thread
// that the system does not run, on a busy machine, delays nobody.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

class Threads {
 public:
  // May throw std::system_error. The threads never end, so this object must never be destroyed.
  explicit Threads(int count) {
    for (int number = 1; number < count; ++number) {
      helpers.push_back(new Helper);
      std::thread(serve, std::ref(*helpers.back())).detach();
    }
  }

  // The maximum number of parallel pieces, including one on the caller's thread.
  int count() const { return int(helpers.size()) + 1; }

  // Runs job(0) .. job(pieces - 1), each once, and waits for them. A job must not wait for another.
  // Throws the exception of a job after all threads have left this call.
  template <typename Job>
  void run(int pieces, const Job& job) {
    std::unique_lock one_at_a_time(mutex, std::defer_lock);
    if (pieces < 2 || helpers.empty() || !one_at_a_time.try_lock()) {
      for (int i = 0; i < pieces; ++i) job(i);
      return;
    }
    Call call{[](const void* job, int i) { (*static_cast<const Job*>(job))(i); },
              &job,
              pieces,
              {0},
              {},
              {}};
    int offered = std::min(int(helpers.size()), pieces - 1);
    for (int i = 0; i < offered; ++i) {
      auto& slot = helpers[i]->call;
      slot.store(&call, std::memory_order_release);
      slot.notify_one();
    }
    call.work();
    for (int i = 0; i < offered; ++i) helpers[i]->withdraw(&call);
    if (call.error) std::rethrow_exception(call.error);
  }

 private:
  struct Call {
    void (*job)(const void*, int);
    const void* context;
    int pieces;
    std::atomic<int> next;
    std::atomic_flag has_failed;
    std::exception_ptr error; // of the first job that failed

    void work() noexcept {
      try {
        for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < pieces;) job(context, i);
      } catch (...) {
        if (!has_failed.test_and_set()) error = std::current_exception();
      }
    }
  };

  // The time of a wake-up: who waits less gains nothing by sleeping.
  static constexpr auto patience = std::chrono::microseconds(20);

  // Spins until `is_over` is true, for `patience` at most.
  template <typename IsOver>
  static void spin(const IsOver& is_over) {
    auto end = std::chrono::steady_clock::now() + patience;
    while (!is_over() && std::chrono::steady_clock::now() < end) {
      for (int i = 0; i < 16 && !is_over(); ++i) _mm_pause();
    }
  }

  struct alignas(64) Helper {
    // Null without work, then an offered call, then `busy` while its pieces run.
    std::atomic<Call*> call{nullptr};

    static Call* busy() { return reinterpret_cast<Call*>(std::uintptr_t(1)); }

    // Takes the offer back, or waits for the piece that runs.
    void withdraw(Call* offered) {
      Call* expected = offered;
      if (call.compare_exchange_strong(expected, nullptr, std::memory_order_acquire)) return;
      spin([&] { return call.load(std::memory_order_acquire) == nullptr; });
      while (call.load(std::memory_order_acquire) != nullptr)
        call.wait(busy(), std::memory_order_acquire);
    }
  };

  static void serve(Helper& helper) {
    auto& slot = helper.call;
    while (true) {
      spin([&] { return slot.load(std::memory_order_relaxed) != nullptr; });
      slot.wait(nullptr, std::memory_order_relaxed);
      Call* call = slot.load(std::memory_order_acquire);
      if (call == nullptr ||
          !slot.compare_exchange_strong(call, Helper::busy(), std::memory_order_acquire))
        continue; // withdrawn
      call->work();
      slot.store(nullptr, std::memory_order_release); // the caller may return: no more of `call`
      slot.notify_one();
    }
  }

  std::vector<Helper*> helpers;
  std::mutex mutex;
};

// The threads of this process; null if there is one, or if no thread can be created.
Threads* threads();

// Runs the pieces on all threads.
template <typename Job>
void run_pieces(int pieces, const Job& job) {
  if (Threads* all = threads()) return all->run(pieces, job);
  for (int i = 0; i < pieces; ++i) job(i);
}
