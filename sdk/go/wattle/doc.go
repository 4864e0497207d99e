// Package wattle is the library for handlers of the Wattle event bus: functions from one event to the events that
// follow from it.
//
//	package main
//
//	import "wattle"
//
//	const greeted wattle.Port = "greeted"
//
//	type visit struct {
//		Name string `json:"name"`
//	}
//
//	type greeting struct {
//		Text string `json:"text"`
//	}
//
//	func init() { wattle.Handle(handle, greeted) }
//	func main() {}
//
//	func handle(event *wattle.Event, out *wattle.Outputs) error {
//		var v visit
//		if err := event.JSON(&v); err != nil { // not what is read here: rejected, with the path of the field
//			return err
//		}
//		return out.JSON(greeted, greeting{"Hello, " + v.Name + "!"})
//	}
//
// A handler is called for one event after the other and should depend on nothing else, except for its
// state ([wattle/state]): variables are a cache that may be gone at the next event. Time is the event's time,
// [time.Sleep] takes no time, random bytes of crypto/rand follow from the event, and what goes to [log/slog], standard
// output or standard error becomes log lines.
//
// # Failures
//
// An error that the handler returns rejects the event: the event becomes a dead letter, since a handler that depends
// on its event alone fails the same way the next time. [Retry] and [RetryAfter] make errors after which the event is
// tried again, and so do errors of the state and of the configuration. A panic loses the event's outputs and writes
// and nothing else; its message and the author's line are the reason of the failure, and the event is tried again.
//
// # Determinism
//
// The same event over the same state should give the same outputs, in any batch, on any machine. Two things of Go do
// not:
//
//   - The order of a map is random. [Outputs.JSON] writes maps in the order of their keys; elsewhere use
//     slices.Sorted(maps.Keys(m)).
//   - math/rand and hash/maphash are seeded once for each instance. [Rand] is seeded for each event.
//
// # Batches
//
// [HandleBatch] is for handlers that want to see the events of a call together.
package wattle
