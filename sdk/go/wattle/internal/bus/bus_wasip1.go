package bus

import (
	"slices"
	"strings"
	"unsafe"
)

// Collections of garbage read clocks and wait, and happen wherever memory is taken: also where the host takes some to
// hand something over, while a component must not call out. So the adapter is told to call nothing then: while the
// bus is in charge, and in each call of it that hands something over.

//go:wasmimport wasi_snapshot_preview1 adapter_monotonic_clock_set_paused
func setPaused(isPaused uint32)

//go:wasmimport wattle:plugin/context@0.1.0 current
func importCurrent(index uint32)

//go:wasmimport wattle:plugin/context@0.1.0 attributes
func importAttributes(lines *text)

//go:wasmimport wattle:plugin/context@0.1.0 ports
func importPorts(ports *text)

//go:wasmimport wasi:logging/logging@0.1.0-draft log
func importLog(level uint32, context, line string)

//go:wasmimport wasi:config/store@0.2.0-rc.1 get
func importConfig(name string, value *optionResult)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft2 open
func importOpen(name string, bucket *wordResult)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft2 [resource-drop]bucket
func importClose(bucket uint32)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft2 [method]bucket.get
func importGet(bucket uint32, key string, value *optionResult)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft2 [method]bucket.set
func importSet(bucket uint32, key string, value unsafe.Pointer, valueLen uint32, result *optionResult)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft2 [method]bucket.delete
func importDelete(bucket uint32, key string, result *optionResult)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft2 [method]bucket.exists
func importExists(bucket uint32, key string, result *wordResult)

//go:wasmimport wasi:keyvalue/store@0.2.0-draft2 [method]bucket.list-keys
func importKeys(bucket, hasCursor uint32, cursor string, result *keysResult)

//go:wasmimport wasi:keyvalue/atomics@0.2.0-draft2 increment
func importIncrement(bucket uint32, key string, delta int64, result *sumResult)

// Where results are written: not on a stack, which may be moved while the host hands something over.
var (
	givenText   text
	givenOption optionResult
	givenWord   wordResult
	givenSum    sumResult
	givenKeys   keysResult
)

// held is what the host took, until it is converted to values of Go.
var held [][]uint64

// handingOver calls the host for something that it hands over.
func handingOver(call func()) {
	setPaused(1)
	call()
	setPaused(0)
}

// released forgets memory that the host took: the collector knows the part that is still used.
func released() {
	clear(held)
	held = held[:0]
}

//go:wasmexport cabi_realloc
func cabiRealloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	// Words, since these are aligned as anything may have to be.
	taken := make([]uint64, max((size+7)/8, 1))
	held = append(held, taken)
	if oldSize > 0 {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&taken[0])), size), unsafe.Slice((*byte)(old), oldSize))
	}
	return unsafe.Pointer(&taken[0])
}

func init() { setPaused(1) }

// What a function gave, until the next call: the host reads it in between.
var (
	described []text
	names     []string
	list      text
	outputs   []Output
	lowered   []outputOf
	handled   handledOf
	reason    string
)

//go:wasmexport wattle:plugin/handler@0.1.0#describe
func describe() uint32 {
	setPaused(0)
	defer setPaused(1)
	if Describe != nil {
		names = Describe()
	}
	described = make([]text, len(names))
	for index, name := range names {
		described[index] = textOf(name)
	}
	list = text{data: uint32(uintptr(unsafe.Pointer(unsafe.SliceData(described)))), len: uint32(len(described))}
	return uint32(uintptr(unsafe.Pointer(&list)))
}

//go:wasmexport wattle:plugin/handler@0.1.0#handle
func handle(topic, topicLen, partition, contentType, contentTypeLen, events, eventsLen uint32) uint32 {
	setPaused(0)
	defer setPaused(1)
	batch := &Batch{
		Topic:       text{data: topic, len: topicLen}.String(),
		Partition:   partition,
		ContentType: text{data: contentType, len: contentTypeLen}.String(),
		Events:      make([]Event, eventsLen),
	}
	for index, event := range listOf[eventOf](events, eventsLen) {
		batch.Events[index] = Event{
			Key: event.key.String(), Type: event.kind.String(), Time: event.time, Attempt: event.attempt,
			Data: event.data.bytes(),
		}
	}
	released()
	if Handle == nil {
		Log(Critical, "panic", "panicked: package main has to call wattle.Handle in an init function")
		trap()
	}
	var failure *Failure
	outputs, failure = Handle(batch)
	lower(failure)
	return uint32(uintptr(unsafe.Pointer(&handled)))
}

// lower writes what became of a batch as the host reads it.
func lower(failure *Failure) {
	lowered = slices.Grow(lowered[:0], len(outputs))
	for _, output := range outputs {
		as := outputOf{
			event: output.Event, port: output.Port, kind: textOf(output.Type), contentType: textOf(output.ContentType),
			attributes: textOf(output.Attributes), data: bytesOf(output.Data),
		}
		if output.Key != nil {
			as.key = option{isSome: true, value: textOf(*output.Key)}
		}
		lowered = append(lowered, as)
	}
	handled = handledOf{outputs: uint32(uintptr(unsafe.Pointer(unsafe.SliceData(lowered)))), len: uint32(len(lowered))}
	if failure == nil {
		return
	}
	reason = strings.ToValidUTF8(failure.Reason, "\ufffd")
	handled.hasFailed, handled.event, handled.reason = true, failure.Event, textOf(reason)
	handled.isReject = !failure.IsRetry
	if failure.AfterMs != nil {
		handled.hasDelay, handled.delayMs = true, *failure.AfterMs
	}
}

// ConfigChanged tells whether settings have to be read again: they are the same for as long as an instance lives.
func ConfigChanged() bool { return false }

// Current begins an event.
func Current(index uint32) { importCurrent(index) }

// Attributes are those of the current event.
func Attributes() string {
	defer released()
	handingOver(func() { importAttributes(&givenText) })
	return givenText.String()
}

// Ports are the names of the ports that the topology connects.
func Ports() []string {
	defer released()
	handingOver(func() { importPorts(&givenText) })
	var ports []string
	for _, port := range listOf[text](givenText.data, givenText.len) {
		ports = append(ports, port.String())
	}
	return ports
}

// Config is a setting of the topology.
func Config(name string) (string, bool) {
	defer released()
	handingOver(func() { importConfig(name, &givenOption) })
	if givenOption.isError || !givenOption.ok.isSome {
		return "", false
	}
	return givenOption.ok.value.String(), true
}

// Log writes a log line.
func Log(level Level, context, line string) {
	importLog(uint32(level), context, strings.ToValidUTF8(line, "\ufffd"))
}

func trap()

// Trap ends the plugin.
func Trap(any) { trap() }

// Bucket is a part of the state.
type Bucket struct{ handle uint32 }

// Open opens a bucket.
func Open(name string) (*Bucket, error) {
	defer released()
	handingOver(func() { importOpen(name, &givenWord) })
	if givenWord.isError {
		return nil, failed(uint8(givenWord.ok), givenWord.other)
	}
	return &Bucket{givenWord.ok}, nil
}

// Close is for a bucket that is not needed any more.
func (b *Bucket) Close() { importClose(b.handle) }

// checked is the error of a result whose error has the place of an option.
func checked() error {
	if !givenOption.isError {
		return nil
	}
	tag := *(*uint8)(unsafe.Pointer(&givenOption.ok))
	return failed(tag, givenOption.ok.value)
}

// Get gives nil where there is nothing.
func (b *Bucket) Get(key string) ([]byte, error) {
	defer released()
	handingOver(func() { importGet(b.handle, key, &givenOption) })
	if err := checked(); err != nil || !givenOption.ok.isSome {
		return nil, err
	}
	return givenOption.ok.value.bytes(), nil
}

// Set puts a value under a key.
func (b *Bucket) Set(key string, value []byte) error {
	defer released()
	handingOver(func() {
		importSet(b.handle, key, unsafe.Pointer(unsafe.SliceData(value)), uint32(len(value)), &givenOption)
	})
	return checked()
}

// Delete removes a key.
func (b *Bucket) Delete(key string) error {
	defer released()
	handingOver(func() { importDelete(b.handle, key, &givenOption) })
	return checked()
}

// Exists tells whether there is a value.
func (b *Bucket) Exists(key string) (bool, error) {
	defer released()
	handingOver(func() { importExists(b.handle, key, &givenWord) })
	if givenWord.isError {
		return false, failed(uint8(givenWord.ok), givenWord.other)
	}
	return uint8(givenWord.ok) == 1, nil
}

// Increment adds to a number.
func (b *Bucket) Increment(key string, delta int64) (int64, error) {
	defer released()
	handingOver(func() { importIncrement(b.handle, key, delta, &givenSum) })
	if givenSum.isError {
		words := text{data: uint32(uint64(givenSum.ok) >> 32), len: givenSum.otherLen}
		return 0, failed(uint8(givenSum.ok), words)
	}
	return givenSum.ok, nil
}

// Keys gives the keys after a cursor, and the next cursor; nil is before the first one and after the last page.
func (b *Bucket) Keys(cursor *string) ([]string, *string, error) {
	defer released()
	var has uint32
	var after string
	if cursor != nil {
		has, after = 1, *cursor
	}
	handingOver(func() { importKeys(b.handle, has, after, &givenKeys) })
	if givenKeys.isError {
		return nil, nil, failed(uint8(givenKeys.keys), text{data: givenKeys.keysLen, len: givenKeys.more})
	}
	var keys []string
	for _, key := range listOf[text](givenKeys.keys, givenKeys.keysLen) {
		keys = append(keys, key.String())
	}
	if uint8(givenKeys.more) == 0 {
		return keys, nil, nil
	}
	next := givenKeys.cursor.String()
	return keys, &next, nil
}
