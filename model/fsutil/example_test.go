package fsutil_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gopeft/model/fsutil"
)

func ExampleWriteFile() {
	dir, err := os.MkdirTemp("", "fsutil")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	path := filepath.Join(dir, "summary.json")
	err = fsutil.WriteFile(path, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, `{"method":"lora"}`)
		return err
	})
	content, _ := os.ReadFile(path)
	fmt.Printf("%s%v\n", content, err)
	// Output:
	// {"method":"lora"}
	// <nil>
}
