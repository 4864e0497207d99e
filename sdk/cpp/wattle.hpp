/**
 * @file wattle.hpp
 * Write a handler for the Wattle event bus in C++17 or newer. This is a thin layer over wattle.h, whose words and rules
 * hold here as well: the rest is used from there.
 *
 * @code
 * #include "wattle.hpp"
 *
 * static void handle(const wattle::Event &event, wattle::Out &out) {
 *   wattle::Value visit = event.json(out);              // not JSON: the event is rejected
 *   std::string_view name = visit.string("name");       // missing or no text: rejected, with the path
 *   wattle::Json json(out);
 *   json.object([&] { json.string("text", "Hello, " + std::string(name) + "!"); });
 *   out.send_json("greeted", json);
 * }
 * WATTLE_HANDLER(handle, "greeted")
 * @endcode
 *
 * There are no exceptions: a failure is told to `out`, and values after one are empty.
 */
#ifndef WATTLE_HPP
#define WATTLE_HPP

#include "wattle.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace wattle {

/** A text of the C library as a view of it. */
inline std::string_view view(wattle_str text) {
  return text.len ? std::string_view(text.data, text.len) : std::string_view();
}
/** A view as a text of the C library. */
inline wattle_str text(std::string_view of) { return wattle_str{ of.data() ? of.data() : "", of.size() }; }

class Value;
class Json;

/** What an output may have beyond its port and data. */
struct Options {
  /** The CloudEvents type; "": the name of the port. */
  std::string_view type = {};
  /** The content type; "": that of the event that it answers. */
  std::string_view content_type = {};
  /** The ordering key; none: that of the event that it answers. */
  std::optional<std::string_view> key = {};
};

/** What becomes of the current event: its outputs, or its failure. */
class Out {
public:
  explicit Out(wattle_out *raw) : raw_(raw) {}

  /** Sends an event to a port. */
  void send(const char *port, std::string_view data, const Options &options = {}) {
    wattle_output output{};
    output.port = port;
    output.data = text(data);
    output.type = text(options.type);
    output.content_type = text(options.content_type);
    if (options.key) output.key = text(*options.key);
    wattle_send(raw_, output);
  }
  /** Sends a JSON text to a port. */
  void send_json(const char *port, const Json &json, Options options = {});
  /** Adds a CloudEvents attribute to the last output. */
  void attribute(const char *name, std::string_view value) { wattle_send_attribute(raw_, name, text(value)); }

  /** It will never work: the event becomes a dead letter. */
  void reject(std::string_view reason) { wattle_reject(raw_, "%.*s", (int)reason.size(), reason.data()); }
  /** It may work later: the event is tried again. */
  void retry(std::string_view reason) { wattle_retry(raw_, "%.*s", (int)reason.size(), reason.data()); }
  /** It may work later: the event is tried again after a delay. */
  void retry_after(uint64_t delay_ms, std::string_view reason) {
    wattle_retry_after(raw_, delay_ms, "%.*s", (int)reason.size(), reason.data());
  }
  /** Whether the event failed. */
  bool failed() const { return wattle_failed(raw_); }
  /** Takes a failure back; gives its reason, if there was one. */
  std::optional<std::string> recover() {
    wattle_str reason;
    if (!wattle_recover(raw_, &reason)) return std::nullopt;
    return std::string(view(reason));
  }

  /** The text of a setting that is not declared. */
  std::optional<std::string_view> config(const char *name) {
    wattle_str value;
    if (!wattle_config(raw_, name, &value)) return std::nullopt;
    return view(value);
  }

  /** For the functions of wattle.h. */
  wattle_out *raw() const { return raw_; }

private:
  wattle_out *raw_;
};

/** A JSON value that was read. */
class Value {
public:
  explicit Value(const wattle_value *raw) : raw_(raw) {}

  /** Members of an object; null reads the value itself. What does not fit fails the event with the path. */
  std::string_view string(const char *name = nullptr) const { return view(wattle_string(raw_, name)); }
  bool boolean(const char *name = nullptr) const { return wattle_bool(raw_, name); }
  int64_t i64(const char *name = nullptr) const { return wattle_i64(raw_, name); }
  uint64_t u64(const char *name = nullptr) const { return wattle_u64(raw_, name); }
  int32_t i32(const char *name = nullptr) const { return wattle_i32(raw_, name); }
  uint32_t u32(const char *name = nullptr) const { return wattle_u32(raw_, name); }
  double number(const char *name = nullptr) const { return wattle_double(raw_, name); }
  Value object(const char *name = nullptr) const { return Value(wattle_object(raw_, name)); }
  Value array(const char *name = nullptr) const { return Value(wattle_array(raw_, name)); }
  Value get(const char *name) const { return Value(wattle_get(raw_, name)); }
  /** Whether there is a member that is not null. */
  bool has(const char *name) const { return wattle_has(raw_, name); }
  wattle_kind kind() const { return wattle_kind_of(raw_); }
  /** The name of a member of an object. */
  std::string_view name() const { return view(wattle_name(raw_)); }
  size_t size() const { return wattle_length(raw_); }

  /** The items of an array, or the members of an object: `for (Value item : order.array("items"))`. */
  class Iterator {
  public:
    explicit Iterator(const wattle_value *at) : at_(at) {}
    Value operator*() const { return Value(at_); }
    Iterator &operator++() {
      at_ = wattle_next(at_);
      return *this;
    }
    bool operator!=(const Iterator &other) const { return at_ != other.at_; }

  private:
    const wattle_value *at_;
  };
  Iterator begin() const { return Iterator(wattle_first(raw_)); }
  Iterator end() const { return Iterator(nullptr); }

  /** Fails the event as a value that does not fit does. */
  void unfit(std::string_view what) const { wattle_unfit(raw_, "%.*s", (int)what.size(), what.data()); }
  const wattle_value *raw() const { return raw_; }

private:
  const wattle_value *raw_;
};

/** A JSON text that is being written. */
class Json {
public:
  explicit Json(Out &out) : raw_(wattle_json_begin(out.raw())) {}

  template <typename Content> void object(const char *name, Content content) {
    wattle_object_begin(raw_, name);
    content();
    wattle_object_end(raw_);
  }
  template <typename Content> void object(Content content) { object(nullptr, std::move(content)); }
  template <typename Content> void array(const char *name, Content content) {
    wattle_array_begin(raw_, name);
    content();
    wattle_array_end(raw_);
  }
  template <typename Content> void array(Content content) { array(nullptr, std::move(content)); }
  /** The name is null for an item of an array. */
  void string(const char *name, std::string_view value) { wattle_write_string(raw_, name, wattle::text(value)); }
  void i64(const char *name, int64_t value) { wattle_write_i64(raw_, name, value); }
  void u64(const char *name, uint64_t value) { wattle_write_u64(raw_, name, value); }
  void number(const char *name, double value) { wattle_write_double(raw_, name, value); }
  void boolean(const char *name, bool value) { wattle_write_bool(raw_, name, value); }
  void null(const char *name) { wattle_write_null(raw_, name); }
  void value(const char *name, const Value &of) { wattle_write_value(raw_, name, of.raw()); }
  std::string_view text() const { return view(wattle_json_end(raw_)); }

private:
  wattle_writer *raw_;
};

inline void Out::send_json(const char *port, const Json &json, Options options) {
  options.content_type = "application/json";
  send(port, json.text(), options);
}

/** One event. */
class Event {
public:
  explicit Event(const wattle_event *raw) : raw_(raw) {}

  std::string_view topic() const { return view(raw_->topic); }
  uint32_t partition() const { return raw_->partition; }
  std::string_view content_type() const { return view(raw_->content_type); }
  std::string_view key() const { return view(raw_->key); }
  std::string_view type() const { return view(raw_->type); }
  uint64_t time_ns() const { return raw_->time_ns; }
  uint32_t attempt() const { return raw_->attempt; }
  std::string_view data() const { return view(raw_->data); }

  /** The data as JSON. */
  Value json(Out &out) const { return Value(wattle_event_json(raw_, out.raw())); }
  /** The data as a text. */
  std::string_view string(Out &out) const { return view(wattle_event_text(raw_, out.raw())); }
  /** One of the CloudEvents attributes. */
  std::optional<std::string_view> attribute(Out &out, const char *name) const {
    wattle_str value;
    if (!wattle_attribute(out.raw(), name, &value)) return std::nullopt;
    return view(value);
  }

private:
  const wattle_event *raw_;
};

/** Keys and values that the plugin keeps from one event to the next. */
class State {
public:
  /** The bucket `default`. */
  explicit State(Out &out) : raw_(wattle_state(out.raw())) {}
  /** A bucket with a name. */
  State(Out &out, const char *bucket) : raw_(wattle_bucket_open(out.raw(), bucket)) {}

  std::optional<std::string_view> get(std::string_view key) const {
    wattle_str value;
    if (!wattle_state_get(raw_, text(key), &value)) return std::nullopt;
    return view(value);
  }
  /** The value as JSON; of the kind WATTLE_MISSING where there is none. */
  Value json(std::string_view key) const { return Value(wattle_state_json(raw_, text(key))); }
  bool exists(std::string_view key) const { return wattle_state_exists(raw_, text(key)); }
  void set(std::string_view key, std::string_view value) { wattle_state_set(raw_, text(key), text(value)); }
  void erase(std::string_view key) { wattle_state_delete(raw_, text(key)); }
  int64_t increment(std::string_view key, int64_t delta) { return wattle_state_increment(raw_, text(key), delta); }
  /** Calls a function with each key, in ascending order. */
  template <typename Visitor> void each_key(Visitor visitor) const {
    wattle_keys *keys = wattle_state_keys(raw_);
    for (wattle_str key; wattle_keys_next(keys, &key);) visitor(view(key));
  }

private:
  wattle_bucket *raw_;
};

} // namespace wattle

/** Makes a plugin of a handler `void handle(const wattle::Event &, wattle::Out &)` and the names of its ports. */
#define WATTLE_HANDLER(handler, ...)                                        \
  static void wattle_handler_(const wattle_event *event, wattle_out *out) { \
    const wattle::Event of(event);                                          \
    wattle::Out into(out);                                                  \
    handler(of, into);                                                      \
  }                                                                         \
  extern "C" {                                                              \
  WATTLE_PLUGIN(wattle_handler_, __VA_ARGS__)                               \
  }

#endif
