package tokenizer_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"gopeft/model/tokenizer"
)

// folder is a BERT vocabulary of a few words.
func folder() string {
	dir, err := os.MkdirTemp("", "tokenizer")
	if err != nil {
		log.Fatal(err)
	}
	vocab := "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld\nun\n##want\n##ed\n,\n!\n"
	if err := os.WriteFile(filepath.Join(dir, "vocab.txt"), []byte(vocab), 0o600); err != nil {
		log.Fatal(err)
	}
	return dir
}

func ExampleLoad() {
	dir := folder()
	defer os.RemoveAll(dir)
	tok, err := tokenizer.Load(dir)
	if err != nil {
		log.Fatal(err)
	}
	enc, err := tok.Encode("Hello, unwanted world!", tokenizer.Options{AddSpecial: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(enc.IDs)
	fmt.Println(strings.Join(enc.Tokens(), " "))
	fmt.Println(enc.Offsets[3:6])
	fmt.Println(tok.Decode(enc.IDs, true))
	// Output:
	// [2 5 10 7 8 9 6 11 3]
	// [CLS] hello , un ##want ##ed world ! [SEP]
	// [[7 9] [9 13] [13 15]]
	// hello, unwanted world!
}

func ExampleTokenizer_EncodePair() {
	dir := folder()
	defer os.RemoveAll(dir)
	tok, err := tokenizer.Load(dir)
	if err != nil {
		log.Fatal(err)
	}
	enc, err := tok.EncodePair("hello world", "unwanted", tokenizer.Options{AddSpecial: true, MaxLength: 7})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(enc.IDs, enc.TypeIDs)
	// Output: [2 5 6 3 7 8 3] [0 0 0 0 1 1 1]
}

func ExampleStream() {
	dir := folder()
	defer os.RemoveAll(dir)
	tok, err := tokenizer.Load(dir)
	if err != nil {
		log.Fatal(err)
	}
	s := tok.NewStream()
	for _, id := range []int64{2, 5, 10, 7, 8, 9, 3} {
		fmt.Printf("%q ", s.Push(id))
	}
	fmt.Printf("%q\n", s.Flush())
	// Output: "" "hello" "," " un" "want" "ed" "" ""
}
