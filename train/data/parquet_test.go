package data

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
)

// classLabels is a data set as HuggingFace's datasets library stores it, class names in its metadata.
const classLabels = "rows/testdata/hf_classlabel.parquet"

func TestParquetOfDatasetsLibrary(t *testing.T) {
	set, err := Load(t.Context(), classLabels, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"neg", "pos"}, set.Labels); diff != "" {
		t.Errorf("class names of the metadata (-want +got):\n%s", diff)
	}
	if len(set.Examples) != 8 {
		t.Fatalf("%d examples", len(set.Examples))
	}
	for i, ex := range set.Examples {
		want := Example{
			Text:  fmt.Sprintf("review %d, naïve “quotes” 日本 🙂\nline 2", i),
			Label: i % 2, Name: set.Labels[i%2], File: classLabels, Row: i + 1,
		}
		if diff := cmp.Diff(want, ex); diff != "" {
			t.Errorf("example %d (-want +got):\n%s", i, diff)
		}
	}
}

// The file's integers are its own names' indices, whatever order a checkpoint has the names in.
func TestParquetClassNamesInAnotherOrder(t *testing.T) {
	set, err := Load(t.Context(), classLabels, LoadOptions{Labels: []string{"pos", "neg"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, ex := range set.Examples {
		if want := []string{"neg", "pos"}[i%2]; ex.Name != want || ex.Label != 1-i%2 {
			t.Errorf("row %d is %d, %s", ex.Row, ex.Label, ex.Name)
		}
	}
	_, err = Load(t.Context(), classLabels, LoadOptions{Labels: []string{"good", "bad"}})
	wantError(t, err, "row 1", "label", "neg")
}

// A limit ends the reading within the first of many row groups.
func TestParquetOfManyRowGroupsIsCut(t *testing.T) {
	type record struct {
		ID    int64    `parquet:"id"`
		Text  string   `parquet:"text,dict"`
		Label int32    `parquet:"label"`
		Tags  []string `parquet:"tags"`
	}
	var records []record
	for i := range 5000 {
		records = append(records, record{ID: int64(i), Text: fmt.Sprint("text ", i%7), Label: int32(i % 3), Tags: make([]string, i%3)})
	}
	var b bytes.Buffer
	if err := parquet.Write(&b, records, parquet.MaxRowsPerRowGroup(700)); err != nil {
		t.Fatal(err)
	}
	set, err := Load(t.Context(), write(t, "many.bin", b.String()), LoadOptions{Limit: 10})
	if err != nil || len(set.Examples) != 10 || len(set.Labels) != 3 {
		t.Errorf("%+v, %v", set, err)
	}
}
