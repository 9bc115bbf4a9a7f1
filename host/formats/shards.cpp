#include "host/formats/shards.hpp"

#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

namespace tenon {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are little-endian and mapped as they are");

constexpr std::string_view kMagic = "TENONSHD";
constexpr std::uint32_t kVersion = 1;

struct Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t vocab_size;
  std::uint64_t tokens;
  std::uint64_t documents;
  std::uint8_t tokenizer[32];
  std::uint8_t reserved[32];
};
static_assert(sizeof(Header) == 96);

constexpr std::size_t kDigestBytes = 32;
constexpr std::string_view kPrefix = "sha256:";

std::string to_hex(const std::uint8_t* bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (std::size_t i = 0; i < kDigestBytes; ++i) {
    hex += kDigits[bytes[i] >> 4];
    hex += kDigits[bytes[i] & 15];
  }
  return hex;
}

int nibble(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  return -1;
}

std::array<std::uint8_t, kDigestBytes> from_hex(std::string_view hex) {
  std::array<std::uint8_t, kDigestBytes> bytes{};
  bool good = hex.size() == 2 * kDigestBytes;
  for (std::size_t i = 0; good && i < kDigestBytes; ++i) {
    const int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);
    good = high >= 0 && low >= 0;
    bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  if (!good) throw Error(Code::bug, "shard", "found the digest \"" + std::string(hex) + "\", need 64 hex digits");
  return bytes;
}

[[noreturn]] void damaged(const std::filesystem::path& path, const std::string& message) {
  throw Error(Code::integrity, "shard", path.string() + ": " + message,
              "delete the file; it is made again from its text");
}

// Documents may be short: their bytes are gathered, and hashed and written a megabyte at a time.
class HashedFile {
 public:
  explicit HashedFile(const std::filesystem::path& path) : file_(path) {}

  void put(std::span<const std::byte> bytes) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    if (buffer_.size() >= std::size_t{1} << 20) flush();
  }
  void seal() {
    flush();
    const auto digest = from_hex(hash_.hex());
    file_.write(std::as_bytes(std::span(digest)));
    file_.commit();
  }

 private:
  void flush() {
    hash_.update(buffer_);
    file_.write(buffer_);
    buffer_.clear();
  }

  AtomicFile file_;
  Sha256 hash_;
  std::vector<std::byte> buffer_;
};

std::size_t padded(std::size_t size) { return (size + 7) & ~std::size_t{7}; }

template <typename T>
std::span<const std::byte> bytes_of(const T* first, std::size_t count) {
  return std::as_bytes(std::span<const T>(first, count));
}

} // namespace

Shard Shard::open(const std::filesystem::path& path) { return Shard(path); }

Shard::Shard(const std::filesystem::path& path) : file_(std::make_shared<const MappedFile>(path)) {
  const std::span<const std::byte> bytes = file_->bytes();
  Header header;
  if (bytes.size() < sizeof header + sizeof(std::uint64_t) + kDigestBytes) {
    damaged(path, "found " + std::to_string(bytes.size()) + " bytes, need a header, one offset and a digest");
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::string_view(header.magic, sizeof header.magic) != kMagic) damaged(path, "byte 0: this is no token shard");
  if (header.version != kVersion) {
    damaged(path, "byte 8: found version " + std::to_string(header.version) + ", need " + std::to_string(kVersion));
  }
  // Bounded by the file first, so that the sums below cannot overflow.
  if (header.tokens > bytes.size() / sizeof(std::int32_t) || header.documents > bytes.size() / sizeof(std::uint64_t)) {
    damaged(path, "byte 16: found " + std::to_string(header.tokens) + " tokens in " + std::to_string(header.documents) +
                      " documents, more than " + std::to_string(bytes.size()) + " bytes can hold");
  }
  const std::size_t starts_at = padded(sizeof header + header.tokens * sizeof(std::int32_t));
  const std::size_t body = starts_at + (header.documents + 1) * sizeof(std::uint64_t);
  if (body + kDigestBytes != bytes.size()) {
    damaged(path, "found " + std::to_string(bytes.size()) + " bytes, the header needs " +
                      std::to_string(body + kDigestBytes));
  }
  const auto* stored = reinterpret_cast<const std::uint8_t*>(bytes.data() + body);
  const std::string hash = sha256(bytes.first(body));
  if (hash != to_hex(stored)) {
    damaged(path, "byte " + std::to_string(body) + ": found the digest " + to_hex(stored) + ", need " + hash);
  }
  digest_ = std::string(kPrefix) + hash;
  tokenizer_digest_ = std::string(kPrefix) + to_hex(header.tokenizer);
  if (header.vocab_size == 0 || header.vocab_size > std::numeric_limits<std::int32_t>::max()) {
    damaged(path, "byte 12: found a vocabulary of " + std::to_string(header.vocab_size));
  }
  vocab_size_ = static_cast<std::int32_t>(header.vocab_size);
  tokens_ = {reinterpret_cast<const std::int32_t*>(bytes.data() + sizeof header), header.tokens};
  starts_ = {reinterpret_cast<const std::uint64_t*>(bytes.data() + starts_at), header.documents + 1};
  check();
}

void Shard::check() const {
  if (starts_.front() != 0 || starts_.back() != tokens_.size()) {
    damaged(path(), "documents reach from " + std::to_string(starts_.front()) + " to " +
                        std::to_string(starts_.back()) + ", need 0 to " + std::to_string(tokens_.size()));
  }
  const auto fall = std::is_sorted_until(starts_.begin(), starts_.end());
  if (fall != starts_.end()) {
    damaged(path(), "document " + std::to_string(fall - starts_.begin()) + " starts before the one ahead of it");
  }
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i] >= 0 && tokens_[i] < vocab_size_) continue;
    damaged(path(), "token " + std::to_string(i) + " is " + std::to_string(tokens_[i]) + ", need one below " +
                        std::to_string(vocab_size_));
  }
}

std::span<const std::int32_t> Shard::document(std::size_t index) const {
  if (index >= document_count()) {
    throw Error(Code::bug, "shard",
                "asked for document " + std::to_string(index) + " of " + std::to_string(document_count()));
  }
  return tokens_.subspan(starts_[index], starts_[index + 1] - starts_[index]);
}

std::span<const std::int32_t> Shard::block(std::size_t index, std::size_t length) const {
  if (length == 0 || index >= block_count(length)) {
    throw Error(Code::bug, "shard",
                "asked for block " + std::to_string(index) + " of " + std::to_string(length) + " tokens, found " +
                    std::to_string(tokens_.size()) + " tokens");
  }
  return tokens_.subspan(index * length, length);
}

void write_shard(const std::filesystem::path& path, std::span<const std::vector<std::int32_t>> documents,
                 std::int32_t vocab_size, const std::string& tokenizer_digest) {
  if (!tokenizer_digest.starts_with(kPrefix)) throw Error(Code::bug, "shard", "need a tokenizer digest sha256:...");
  const auto tokenizer = from_hex(std::string_view(tokenizer_digest).substr(kPrefix.size()));
  std::vector<std::uint64_t> starts{0};
  for (const auto& document : documents) {
    for (std::int32_t token : document) {
      if (token >= 0 && token < vocab_size) continue;
      throw Error(Code::bug, "shard",
                  "token " + std::to_string(token) + " in a vocabulary of " + std::to_string(vocab_size));
    }
    starts.push_back(starts.back() + document.size());
  }
  Header header{};
  std::copy(kMagic.begin(), kMagic.end(), header.magic);
  header.version = kVersion;
  header.vocab_size = static_cast<std::uint32_t>(vocab_size);
  header.tokens = starts.back();
  header.documents = documents.size();
  std::copy(tokenizer.begin(), tokenizer.end(), header.tokenizer);

  HashedFile file(path);
  file.put(bytes_of(&header, 1));
  for (const auto& document : documents) file.put(bytes_of(document.data(), document.size()));
  const std::size_t end = sizeof header + header.tokens * sizeof(std::int32_t);
  const std::array<std::byte, 8> zeros{};
  file.put(std::span(zeros).first(padded(end) - end));
  file.put(bytes_of(starts.data(), starts.size()));
  file.seal();
}

} // namespace tenon
