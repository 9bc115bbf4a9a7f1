// A whole model's products and attention without a model: a run of blocks of SmolLM2-135M's shapes on made-up weights,
// and its head, decoding at several contexts, for eight sequences at once, and reading prompts; in every packed format,
// with the machine's limits measured around every figure. Prints medians: tokens/s, and the fraction of the bandwidth
// (decoding one sequence: weights, keys and values) or of the peak (reading: products and causal attention). Never a
// test.
//
// Then, of a token decoded at the beginning, of one after 4,096, and of a step of eight sequences, where the time of
// the blocks goes: what their bytes, keys and values take at the machine's bandwidth; read by plain loads as products
// and attention go through them, of eight sequences by each thread for its own (`pieces`); and with one block's in all
// places, so that they come from a cache (`cached`: arithmetic and everything small). Likewise of eight sequences that
// share two thirds of the blocks and the head, and have all other blocks of their own.
//
//   tenon_blocks_bench [ROUNDS]     TENON_TIER and TENON_THREADS choose tier and threads; weights lie in 2 MiB pages
#include "kernels/cpu/transformer_run.hpp"
#include "tests/bench/machine.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <initializer_list>

namespace tenon::cpu::bench {
namespace {

constexpr std::int64_t kBlocks = 30, kWidth = 576, kInner = 1536, kVocabulary = 49152, kMost = 4096 + 64;
constexpr HeadShape kHeads{9, 3, 64};
constexpr std::int64_t kSequences = 8;
constexpr std::size_t kShared = 20; // blocks, of sequences that have the others of their own

// Numbers in [-1, 1), the same everywhere.
std::vector<float> noise(std::int64_t count, std::uint32_t seed) {
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& one : out) {
    seed = seed * 1664525u + 1013904223u;
    one = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
  }
  return out;
}

// The model in one format. int4: a head in int8, as files have it.
class Model {
 public:
  // cached: every block's weights lie in the same place.
  explicit Model(PackedFormat format, bool cached = false)
      : memory_(std::size_t{320} << 20), next_(memory_.bytes().data()) {
    const PackedFormat head = reads_bf16(format) ? format : PackedFormat::int8g32;
    for (std::int64_t i = 0; i < kBlocks; ++i) {
      if (cached) next_ = memory_.bytes().data();
      Block block;
      // In the order of their names, as packed files hold them.
      block.k = linear(format, kHeads.kv_width(), kWidth), block.o = linear(format, kWidth, kHeads.q_width());
      block.q = linear(format, kHeads.q_width(), kWidth), block.v = linear(format, kHeads.kv_width(), kWidth);
      block.down = linear(format, kWidth, kInner);
      block.gate = linear(format, kInner, kWidth), block.up = linear(format, kInner, kWidth);
      block.attention_norm = block.ffn_norm = {ones_.data(), nullptr};
      blocks_.push_back(block);
    }
    head_at_ = next_;
    head_ = linear(head, kVocabulary, kWidth);
  }
  std::int64_t bytes() const { return next_ - memory_.bytes().data(); }
  std::int64_t block_bytes() const { return head_at_ - memory_.bytes().data(); } // of all blocks
  std::span<const Block> blocks() const { return blocks_; }
  const Linear& head() const { return head_; }

 private:
  // One panel's values, over and over.
  Linear linear(PackedFormat format, std::int64_t outputs, std::int64_t inputs) {
    const Linear made{{format, outputs, inputs, next_}};
    const std::size_t panel = panel_bytes(format, inputs).value();
    std::vector<float> w = noise(kPanel * inputs, 1);
    for (float& one : w) one *= 0.05f;
    pack(format, kPanel, inputs, w, {next_, panel});
    for (std::int64_t p = 1; p < made.weight.panels(); ++p) std::memcpy(next_ + p * panel, next_, panel);
    next_ += made.weight.panels() * panel;
    return made;
  }

  HugeMemory memory_;
  std::byte *next_, *head_at_ = nullptr;
  std::vector<float> ones_ = std::vector<float>(kWidth, 1.0f);
  std::vector<Block> blocks_;
  Linear head_;
};

// Keys and values of sequences that have all the same past.
class Store : public KeyValueStore {
 public:
  // cached: every block's lie in the same place.
  explicit Store(bool cached = false) : memory_(kSequences * kBlocks * kPast / kChunk * chunk_bytes()) {
    std::byte* next = memory_.bytes().data();
    const auto chunks = [&](std::int64_t width) {
      std::vector<float*> out;
      for (std::int64_t at = 0; at < kPast; at += kChunk, next += kChunk * width * 4)
        out.push_back(reinterpret_cast<float*>(next));
      return out;
    };
    const std::vector<float> rows = noise(kPast * kHeads.kv_width(), 3);
    const Kernels& kernels = *engine().kernels;
    for (std::int64_t i = 0; i < kSequences * kBlocks; ++i) {
      if (cached && i % kBlocks > 0) {
        k_.push_back(k_.back()), v_.push_back(v_.back());
        continue;
      }
      k_.push_back(chunks(key_width(kForm, kHeads))), v_.push_back(chunks(value_width(kForm, kHeads)));
      put_keys(kernels, kForm, kHeads, rows.data(), 0, kPast, k_.back().data());
      put_values(kernels, kForm, kHeads, rows.data(), 0, kPast, v_.back().data());
    }
  }
  KeyValues extend(std::int64_t block, std::int64_t span) override {
    const auto at = static_cast<std::size_t>(span * kBlocks + first + block);
    return {past, k_[at].data(), v_[at].data()};
  }
  static std::int64_t bytes(std::int64_t positions) { return kBlocks * positions * chunk_bytes() / kChunk; }

  std::int64_t past = 0, first = 0; // first: the model's block that a run begins with

 private:
  static constexpr KeyFormat kForm = KeyFormat::bf16;
  static constexpr std::int64_t kPast = (kMost + kChunk - 1) / kChunk * kChunk;
  static std::int64_t chunk_bytes() { return kChunk * 4 * (key_width(kForm, kHeads) + value_width(kForm, kHeads)); }
  HugeMemory memory_;
  std::vector<std::vector<float*>> k_, v_;
};

struct Case {
  std::int64_t past, rows, sequences;
  std::vector<double> rate = {}, fraction = {};

  bool reads() const { return rows > 1; }
  double operations() const { // products of every row, scores and sums of what each sees
    const double weights =
        kBlocks * (2.0 * kWidth * kHeads.q_width() + 2.0 * kWidth * kHeads.kv_width() + 3.0 * kWidth * kInner);
    const double seen = static_cast<double>(past) + static_cast<double>(rows) / 2;
    return 2.0 * static_cast<double>(rows) * (weights + kBlocks * 2.0 * seen * kHeads.q_width());
  }
};

class Bench {
 public:
  // One step, or one prompt, of every case.
  void round(PackedFormat format, const Model& model, std::vector<Case>& cases) {
    for (Case& c : cases) {
      machine_.measure();
      const int steps = c.reads() ? 1 : 8;
      const double taken = seconds([&] {
        for (int i = 0; i < steps; ++i) step(model, c);
      });
      const double rate = static_cast<double>(c.sequences * c.rows * steps) / taken;
      const double bytes = static_cast<double>(model.bytes() + c.sequences * Store::bytes(c.past));
      c.rate.push_back(rate);
      c.fraction.push_back(c.reads() ? rate / static_cast<double>(c.rows) * c.operations() / 1e9 /
                                           (reads_bf16(format) ? machine_.bf16() : machine_.int8())
                                     : rate / static_cast<double>(c.sequences) * bytes / 1e9 / machine_.read());
    }
  }
  const Machine& machine() const { return machine_; }

  // Milliseconds of one step in the blocks, without the head.
  void account(const Model& model, const Model& cached, int rounds, const Case& c) {
    std::vector<double> step, bandwidth, pieces, inside;
    const auto once = [&](const auto& work) {
      constexpr int times = 8;
      return 1e3 / times * seconds([&] {
               for (int i = 0; i < times; ++i) work();
             });
    };
    const double bytes = static_cast<double>(model.block_bytes() + c.sequences * Store::bytes(c.past));
    for (int round = 0; round < rounds; ++round) {
      machine_.measure();
      bandwidth.push_back(bytes / machine_.read() / 1e6);
      pieces.push_back(once([&] { c.sequences > 1 ? read_apart(model, c) : read_together(model, c); }));
      step.push_back(once([&] { all_blocks(model, store_, c); }));
      inside.push_back(once([&] { all_blocks(cached, cached_, c); }));
    }
    std::printf(
        "  blocks of %d sequences at %d take %.2f ms; their bytes %.2f at the bandwidth, %.2f in pieces; cached %.2f\n",
        static_cast<int>(c.sequences), static_cast<int>(c.past), median(step), median(bandwidth), median(pieces),
        median(inside));
  }

  // Milliseconds of a step of as many sequences as models: blocks and head that all share, the first model's; then the
  // blocks that each has of its own. And of one of them alone.
  void account_apart(const std::deque<Model>& models, const Model& cached, int rounds, std::int64_t past) {
    constexpr int times = 8;
    const Case all{past, 1, std::ssize(models)}, one{past, 1, 1};
    Runs own;
    for (const Model& model : models) own.push_back(model.blocks().subspan(kShared));
    const Runs first(own.begin(), own.begin() + 1), inside(own.size(), cached.blocks().subspan(kShared));
    std::vector<double> shared, apart, shared_alone, apart_alone, bandwidth, pieces, cache;
    const auto step = [&](const Case& c, const Runs& runs, std::vector<double>& ends, std::vector<double>& middles) {
      double end = 0, middle = 0;
      for (int i = 0; i < times; ++i) {
        begin(c);
        end += seconds([&] { blocks({models[0].blocks().first(kShared)}, store_, c); });
        store_.first = kShared;
        middle += seconds([&] { blocks(runs, store_, c); });
        store_.first = 0;
        end += seconds([&] { head(models[0], c); });
      }
      ends.push_back(1e3 / times * end), middles.push_back(1e3 / times * middle);
    };
    const double part = static_cast<double>(kBlocks - kShared) / kBlocks,
                 bytes = part * static_cast<double>(models[0].block_bytes() + Store::bytes(past));
    for (int round = 0; round < rounds; ++round) {
      machine_.measure();
      bandwidth.push_back(static_cast<double>(all.sequences) * bytes / machine_.read() / 1e6);
      step(one, first, shared_alone, apart_alone);
      step(all, own, shared, apart);
      pieces.push_back(1e3 / times * seconds([&] {
                         for (int i = 0; i < times; ++i) read_own(models, past);
                       }));
      cache.push_back(1e3 / times * seconds([&] {
                        for (int i = 0; i < times; ++i) begin(all), blocks(inside, cached_, all);
                      }));
    }
    std::printf(
        "  %d sequences at %d, %d blocks of their own: these take %.2f ms, what all share %.2f (of one: %.2f, "
        "%.2f); own bytes %.2f at the bandwidth, %.2f in pieces; cached %.2f\n",
        static_cast<int>(all.sequences), static_cast<int>(past), static_cast<int>(kBlocks - kShared), median(apart),
        median(shared), median(apart_alone), median(shared_alone), median(bandwidth), median(pieces), median(cache));
  }

 private:
  using Runs = std::vector<std::span<const Block>>;
  using Matrices = std::initializer_list<const Linear*>;

  // What a step reads of weights, keys and values, region by region, each thread its part.
  void read_together(const Model& model, const Case& c) {
    const std::int64_t threads = engine().pool->threads(),
                       all = 2 * kHeads.kv_heads * ((c.past + kChunk - 1) / kChunk); // pieces of keys and values
    const auto region = [&](Matrices of) {
      engine().pool->run(threads, [&](std::int64_t t) { read_part(of, t, threads); });
    };
    for (std::size_t i = 0; i < kBlocks; ++i) {
      const Block& block = model.blocks()[i];
      region({&block.q, &block.k, &block.v});
      engine().pool->run(threads, [&](std::int64_t t) {
        std::int64_t index = 0;
        for_chunks(static_cast<std::int64_t>(i), 0, c.past, [&](const std::byte* at, std::int64_t size) {
          if (index >= all * t / threads && index < all * (t + 1) / threads) read_all(at, size);
          ++index;
        });
      });
      region({&block.o}), region({&block.up, &*block.gate}), region({&block.down});
    }
  }
  // Each thread all weights, and the keys and values of its sequences.
  void read_apart(const Model& model, const Case& c) {
    const std::int64_t threads = engine().pool->threads();
    engine().pool->run(threads, [&](std::int64_t t) {
      for (std::size_t i = 0; i < kBlocks; ++i) {
        const Block& block = model.blocks()[i];
        read_part({&block.q, &block.k, &block.v}, 0, 1);
        for (std::int64_t s = c.sequences * t / threads; s < c.sequences * (t + 1) / threads; ++s)
          for_chunks(static_cast<std::int64_t>(i), s, c.past, read_all);
        read_part({&block.o, &block.up, &*block.gate, &block.down}, 0, 1);
      }
    });
  }
  // Each thread what its sequences have of their own.
  void read_own(const std::deque<Model>& models, std::int64_t past) {
    const std::int64_t threads = engine().pool->threads(), all = std::ssize(models);
    engine().pool->run(threads, [&](std::int64_t t) {
      for (std::int64_t s = all * t / threads; s < all * (t + 1) / threads; ++s)
        for (std::size_t i = kShared; i < kBlocks; ++i) {
          const Block& block = models[static_cast<std::size_t>(s)].blocks()[i];
          read_part({&block.q, &block.k, &block.v}, 0, 1);
          for_chunks(static_cast<std::int64_t>(i), s, past, read_all);
          read_part({&block.o, &block.up, &*block.gate, &block.down}, 0, 1);
        }
    });
  }
  // A thread's part of some matrices, one behind the other.
  static void read_part(Matrices of, std::int64_t part, std::int64_t parts) {
    constexpr std::int64_t piece = 256;
    const auto pieces = [](const Linear& one) {
      return (one.weight.panel(one.weight.panels()) - one.weight.bytes) / piece;
    };
    std::int64_t all = 0, at = 0;
    for (const Linear* one : of) all += pieces(*one);
    for (const Linear* one : of) {
      const std::int64_t begin = std::clamp(all * part / parts - at, std::int64_t{0}, pieces(*one)),
                         end = std::clamp(all * (part + 1) / parts - at, std::int64_t{0}, pieces(*one));
      if (end > begin) read_all(one->weight.bytes + begin * piece, (end - begin) * piece);
      at += pieces(*one);
    }
  }
  // each(at, bytes) of the keys and values of a block's chunks, group by group.
  template <class Each>
  void for_chunks(std::int64_t block, std::int64_t sequence, std::int64_t past, const Each& each) {
    const KeyValues to = store_.extend(block, sequence);
    for (std::int64_t g = 0; g < kHeads.kv_heads; ++g)
      for (std::int64_t c = 0; c * kChunk < past; ++c)
        for (const float* of : {to.k[c], to.v[c]}) {
          const std::int64_t size = kChunk * kHeads.depth * 2,
                             used = std::min(kChunk, past - c * kChunk) * kHeads.depth * 2;
          each(reinterpret_cast<const std::byte*>(of) + g * size, used);
        }
  }

  void step(const Model& model, const Case& c) {
    all_blocks(model, store_, c);
    head(model, c);
  }
  void all_blocks(const Model& model, Store& store, const Case& c) {
    begin(c);
    blocks({model.blocks()}, store, c);
  }
  void begin(const Case& c) { h_.assign(x_.begin(), x_.begin() + c.sequences * c.rows * kWidth); }
  // One run for all sequences, or one for each.
  void blocks(const Runs& runs, Store& store, const Case& c) {
    const RunShape shape{kHeads, 1e-5, 10000.0};
    std::vector<RunSpan> spans;
    for (std::int64_t s = 0; s < c.sequences; ++s)
      spans.push_back({s * c.rows, c.rows, c.past, runs.size() > 1 ? static_cast<std::size_t>(s) : 0});
    arena_.reset();
    store.past = c.past;
    if (runs.size() > 1) return run_apart(engine(), arena_, shape, runs, spans, store, h_.data());
    run_blocks(engine(), arena_, shape, runs, spans, store, h_.data(), c.rows * c.sequences);
  }
  // Logits of each sequence's last row, of integers in two parts.
  void head(const Model& model, const Case& c) {
    const Product head[] = {{&model.head(), logits_.data()}};
    const float* last = h_.data() + (c.rows - 1) * c.sequences * kWidth;
    const Rows rows = reads_bf16(model.head().weight.format)
                          ? prepare(engine(), arena_, last, c.sequences, kWidth, Forms() |= model.head())
                          : prepare_finely(engine(), arena_, last, c.sequences, kWidth);
    multiply(engine(), arena_, rows, head);
  }

  Machine machine_;
  Store store_, cached_{true};
  Arena arena_;
  std::vector<float> x_ = noise(2048 * kWidth, 7), h_, logits_ = std::vector<float>(kSequences * kVocabulary);
};

} // namespace
} // namespace tenon::cpu::bench

int main(int argc, char** argv) {
  using namespace tenon::cpu;
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  if (rounds < 1) return std::fputs("usage: tenon_blocks_bench [ROUNDS]\n", stderr), 2;
  bench::Bench all;
  for (const PackedFormat format : {PackedFormat::bf16e4, PackedFormat::bf16, PackedFormat::int8g32,
                                    PackedFormat::int4g32, PackedFormat::int4g32m}) {
    const bench::Model model(format);
    std::vector<bench::Case> cases = {{0, 1, 1}, {512, 1, 1}, {4096, 1, 1}, {512, 1, 8}, {0, 512, 1}, {0, 2048, 1}};
    for (int i = 0; i < rounds; ++i) all.round(format, model, cases);
    for (const bench::Case& c : cases)
      std::printf("%-9s %s %4d, %d sequences  %8.1f tokens/s  %.2f of the %s\n", packed_name(format),
                  c.reads() ? "reads  " : "decodes at", static_cast<int>(c.reads() ? c.rows : c.past),
                  static_cast<int>(c.sequences), bench::median(c.rate), bench::median(c.fraction),
                  c.reads() ? "peak" : "bandwidth");
    const bench::Model cached(format, true);
    for (const bench::Case& c : {bench::Case{0, 1, 1}, {4096, 1, 1}, {64, 1, bench::kSequences}})
      all.account(model, cached, rounds, c);
    std::deque<bench::Model> models;
    for (std::int64_t s = 0; s < bench::kSequences; ++s) models.emplace_back(format);
    all.account_apart(models, cached, rounds, 64);
  }
  all.machine().print();
}
