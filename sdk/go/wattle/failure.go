package wattle

import (
	"errors"
	"fmt"
	"time"
)

// failure is an error that says what becomes of the event.
type failure struct {
	error
	isRetry bool
	after   *time.Duration
}

func (f failure) Unwrap() error { return errors.Unwrap(f.error) }

// Reject makes an error that says that the event will never work: it becomes a dead letter. The arguments are those
// of [fmt.Errorf]. Any other error rejects as well, except for those of [Retry] and [RetryAfter], also where they are
// wrapped.
func Reject(format string, args ...any) error {
	return failure{error: fmt.Errorf(format, args...)}
}

// Retry makes an error that says that the event may work later: it is tried again, when the topology says.
func Retry(format string, args ...any) error {
	return failure{error: fmt.Errorf(format, args...), isRetry: true}
}

// RetryAfter is [Retry] with a delay of one's own, which is kept in milliseconds.
func RetryAfter(after time.Duration, format string, args ...any) error {
	return failure{error: fmt.Errorf(format, args...), isRetry: true, after: &after}
}

// IsRetry tells whether an event that fails with this error is tried again.
func IsRetry(err error) bool {
	var f failure
	return errors.As(err, &f) && f.isRetry
}
