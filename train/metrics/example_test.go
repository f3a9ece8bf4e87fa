package metrics_test

import (
	"fmt"
	"os"

	"gopeft/train/metrics"
)

func ExampleCount() {
	labels := []int{0, 0, 0, 1, 1}
	predicted := []int{0, 0, 1, 1, 1}
	c, err := metrics.Count(labels, predicted, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("accuracy %.2f, macro F1 %.2f\n", c.Accuracy(), c.MacroF1())
	if err := c.WriteText(os.Stdout, []string{"neg", "pos"}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// accuracy 0.80, macro F1 0.80
	//   label \ predicted  neg  pos  precision  recall     F1
	//                 neg    2    1      1.000   0.667  0.800
	//                 pos    0    2      0.667   1.000  0.800
}
