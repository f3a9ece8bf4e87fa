package spool_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"gopeft/train/data/spool"
)

func Example() {
	s, err := spool.Create(os.TempDir())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	first, _ := s.Append([]byte("a text"))
	second, _ := s.Append([]byte("another"))
	_ = s.Flush()
	for _, at := range []int64{second, first} {
		record, err := s.Read(nil, at)
		fmt.Println(string(record), err)
	}
	// Output:
	// another <nil>
	// a text <nil>
}

func TestRecordsOfAnySize(t *testing.T) {
	dir := t.TempDir()
	s, err := spool.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("the file has a name: %v", left)
	}
	var want [][]byte
	var at []int64
	for _, n := range []int{0, 1, 4091, 4092, 4093, 100_000, 0, 7} {
		record := bytes.Repeat([]byte{byte(n), 3}, n)[:n]
		place, err := s.Append(record)
		if err != nil {
			t.Fatal(err)
		}
		want, at = append(want, record), append(at, place)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	var buf []byte
	for i := range want {
		if buf, err = s.Read(buf, at[i]); err != nil || !bytes.Equal(buf, want[i]) {
			t.Errorf("record %d of %d bytes came back with %d: %v", i, len(want[i]), len(buf), err)
		}
	}
	end := at[len(at)-1] + 4 + 7
	for _, bad := range []int64{-1, end, end - 2} {
		if got, err := s.Read(nil, bad); err == nil {
			t.Errorf("at %d: %q", bad, got)
		}
	}
}
