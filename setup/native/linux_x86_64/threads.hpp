// A thread pool for products: OpenBLAS's own, and those of few_rows.hpp. Two pools would compete:
// each would spin on the cores that the other one needs.
#pragma once
#include <immintrin.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

class Threads {
 public:
  // May throw std::system_error. The threads never end, so this object must never be destroyed.
  explicit Threads(int count) {
    for (int number = 1; number < count; ++number) {
      helpers.push_back(new Helper);
      std::thread(serve, std::ref(*helpers.back()), number).detach();
    }
  }

  // The maximum number of parallel jobs, including one on the caller's thread.
  int count() const { return int(helpers.size()) + 1; }

  // Runs job(0) .. job(jobs - 1) in parallel and waits for them. `jobs` is at most `count()`,
  // because OpenBLAS's jobs wait for each other.
  template <typename Job>
  void run(int jobs, const Job& job) {
    std::lock_guard one_at_a_time(mutex);
    Call call{[](const void* job, int i) { (*static_cast<const Job*>(job))(i); }, &job, jobs - 1};
    for (int i = 1; i < jobs; ++i) {
      auto& slot = helpers[i - 1]->call;
      slot.store(&call, std::memory_order_release);
      slot.notify_one();
    }
    job(0);
    for (unsigned turn = 1; call.unfinished.load(std::memory_order_acquire) > 0; ++turn) pause(turn);
  }

 private:
  struct Call {
    void (*job)(const void*, int);
    const void* context;
    std::atomic<int> unfinished;
  };
  struct alignas(64) Helper {
    std::atomic<Call*> call{nullptr};
  };

  static void serve(Helper& helper, int number) {
    using Clock = std::chrono::steady_clock;
    // A decoding step has about a hundred products, with shorter intervals between them.
    constexpr auto patience = std::chrono::milliseconds(5);
    Clock::time_point last{};
    while (true) {
      Call* call;
      for (unsigned turn = 1; !(call = helper.call.load(std::memory_order_acquire)); ++turn) {
        if (pause(turn) && Clock::now() > last + patience) helper.call.wait(nullptr);
      }
      call->job(call->context, number);
      helper.call.store(nullptr, std::memory_order_relaxed);
      call->unfinished.fetch_sub(1, std::memory_order_release); // the caller may return: no more of `call`
      last = Clock::now();
    }
  }

  // Spins, and yields to other threads at intervals. Returns true if it yielded.
  static bool pause(unsigned turn) {
    bool lets_others_run = turn % 16 == 0;
    if (lets_others_run) {
      sched_yield();
    } else {
      _mm_pause();
    }
    return lets_others_run;
  }

  std::vector<Helper*> helpers;
  std::mutex mutex;
};
