package report

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"time"
)

// Scalar is a named value for TensorBoard; the part of the tag before a slash
// groups charts.
type Scalar struct {
	Tag   string
	Value float64
}

// Events writes scalars in TensorBoard's event format: length-framed protobuf
// messages (tensorflow.Event) with masked CRC-32C sums, as TFRecord files have
// them.
type Events struct {
	file *os.File
}

// OpenEvents begins an event file in dir, which is created if missing. With a
// step from which a run resumes, TensorBoard is told to forget what older
// files in dir hold for later steps; with FromStart it is not. now dates the
// file.
func OpenEvents(dir string, resumeAtStep int, now time.Time) (*Events, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	// The time in nanoseconds keeps the files of quick restarts apart and in
	// order.
	name := fmt.Sprintf("events.out.tfevents.%d.%s.%d", now.UnixNano(), filepath.Base(host), os.Getpid())
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	e := &Events{file}
	err = e.write(appendBytes(eventAt(now, 0), fieldFileVersion, []byte("brain.Event:2")))
	if err == nil && resumeAtStep != FromStart {
		start := appendVarint(nil, fieldStatus, sessionStart)
		err = e.write(appendBytes(eventAt(now, int64(resumeAtStep)+1), fieldSessionLog, start))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return e, nil
}

// Write appends the finite ones among the values at a step.
func (e *Events) Write(step int, at time.Time, values ...Scalar) error {
	var summary []byte
	for _, v := range values {
		if math.IsNaN(v.Value) || math.IsInf(v.Value, 0) {
			continue
		}
		value := appendBytes(nil, fieldTag, []byte(v.Tag))
		value = appendKey(value, fieldSimpleValue, wireFixed32)
		value = binary.LittleEndian.AppendUint32(value, math.Float32bits(float32(v.Value)))
		summary = appendBytes(summary, fieldValue, value)
	}
	if len(summary) == 0 {
		return nil
	}
	return e.write(appendBytes(eventAt(at, int64(step)), fieldSummary, summary))
}

// Close closes the file.
func (e *Events) Close() error { return e.file.Close() }

// Protobuf field numbers and wire types of tensorflow.Event and its parts.
const (
	fieldWallTime    = 1 // Event
	fieldStep        = 2
	fieldFileVersion = 3
	fieldSummary     = 5
	fieldSessionLog  = 7
	fieldStatus      = 1 // SessionLog
	fieldValue       = 1 // Summary
	fieldTag         = 1 // Summary.Value
	fieldSimpleValue = 2

	sessionStart = 1

	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

func appendKey(b []byte, field, wire int) []byte {
	return binary.AppendUvarint(b, uint64(field<<3|wire))
}

func appendVarint(b []byte, field int, v uint64) []byte {
	return binary.AppendUvarint(appendKey(b, field, wireVarint), v)
}

func appendBytes(b []byte, field int, v []byte) []byte {
	b = binary.AppendUvarint(appendKey(b, field, wireBytes), uint64(len(v)))
	return append(b, v...)
}

func eventAt(at time.Time, step int64) []byte {
	b := appendKey(nil, fieldWallTime, wireFixed64)
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(at.UnixNano())/1e9))
	return appendVarint(b, fieldStep, uint64(step))
}

// write frames a message as a TFRecord, in one system call.
func (e *Events) write(message []byte) error {
	record := binary.LittleEndian.AppendUint64(nil, uint64(len(message)))
	record = binary.LittleEndian.AppendUint32(record, maskedCRC(record))
	record = append(record, message...)
	record = binary.LittleEndian.AppendUint32(record, maskedCRC(message))
	_, err := e.file.Write(record)
	return err
}

// maskedCRC is the checksum of TFRecord files: the CRC-32C, rotated and with a
// constant added, because the CRC of data that contain their own CRC is weak.
func maskedCRC(data []byte) uint32 {
	sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return (sum>>15 | sum<<17) + 0xa282ead8
}
