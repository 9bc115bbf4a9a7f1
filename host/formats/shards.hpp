// Token shards: the ids of a corpus in one memory-mapped file.
//
// Layout, little-endian: 96-byte header (magic "TENONSHD", u32 version 1, u32 vocab size, u64 tokens, u64 documents,
// 32 bytes tokenizer digest, 32 bytes zero), u32 tokens[], zero padding to 8 bytes, u64 starts[documents + 1], and the
// sha256 of all that (32 bytes). starts[0] is 0, starts never fall, the last is the number of tokens; every token is
// below the vocab size. All of it is checked when the file is opened.
//
// Version 2 is for dialogues, of which only answers count for the loss: the 32 zero bytes begin with the length u64 of
// the blocks that dialogues were packed into, and behind the starts stands a bit a token, u64 mask[tokens/64 rounded
// up], least significant first; bits beyond the last token are 0. The tokens fill whole blocks; a document without a
// bit set is padding.
//
// Documents follow each other without gaps; a document that is a whole record ends in the tokenizer's separator. Blocks
// are cut from the whole stream, T tokens each, across document boundaries; a last, shorter stretch belongs to none.
// Thread: immutable; any thread.
#pragma once

#include "registry/base/files.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tenon {

class Shard {
 public:
  // Maps and checks. Errors: not_found, integrity (naming file, place, expected and found).
  static Shard open(const std::filesystem::path& path);

  std::span<const std::int32_t> tokens() const { return tokens_; }
  std::size_t document_count() const { return starts_.size() - 1; }
  std::span<const std::int32_t> document(std::size_t index) const;
  std::span<const std::uint64_t> document_starts() const { return starts_; } // document_count() + 1

  // Whole blocks of `length` tokens in the stream. Requires: length > 0.
  std::size_t block_count(std::size_t length) const { return tokens_.size() / length; }
  // Requires: index < block_count(length).
  std::span<const std::int32_t> block(std::size_t index, std::size_t length) const;

  // The length of the blocks that whole dialogues were packed into; 0 for ordinary text, all of which counts.
  std::size_t packed_length() const { return packed_length_; }
  // Whether foretelling this token counts for the loss. Requires: token < tokens().size().
  bool counts(std::size_t token) const {
    return packed_length_ == 0 || (loss_mask_[token / 64] >> (token % 64) & 1) != 0;
  }
  bool is_padding(std::size_t document) const;
  // How many tokens of a block stand before its padding. Requires: index < block_count(length).
  std::size_t block_text(std::size_t index, std::size_t length) const;

  std::int32_t vocab_size() const { return vocab_size_; }
  const std::string& tokenizer_digest() const { return tokenizer_digest_; } // "sha256:..."
  const std::string& digest() const { return digest_; }                     // "sha256:..." of the contents
  const std::filesystem::path& path() const { return file_->path(); }

 private:
  explicit Shard(const std::filesystem::path& path);
  void read(std::span<const std::byte> bytes);
  void check() const;
  void check_mask() const;

  std::shared_ptr<const MappedFile> file_; // copies share the mapping
  std::span<const std::int32_t> tokens_;
  std::span<const std::uint64_t> starts_;
  std::size_t packed_length_ = 0;
  std::span<const std::uint64_t> loss_mask_;
  std::int32_t vocab_size_ = 0;
  std::string tokenizer_digest_, digest_;
};

// Writes a shard atomically. Each inner vector is a document.
// Errors: environment; bug (a token outside the vocabulary).
void write_shard(const std::filesystem::path& path, std::span<const std::vector<std::int32_t>> documents,
                 std::int32_t vocab_size, const std::string& tokenizer_digest);

// A document of which only some tokens count for the loss.
struct MaskedDocument {
  std::vector<std::int32_t> tokens;
  std::vector<bool> counts; // of each token
};

// The same for dialogues, packed by host/formats/packing. Errors: as above; bug (they do not fill whole blocks).
void write_packed_shard(const std::filesystem::path& path, std::span<const MaskedDocument> documents,
                        std::size_t packed_length, std::int32_t vocab_size, const std::string& tokenizer_digest);

} // namespace tenon
