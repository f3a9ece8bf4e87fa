package report_test

import (
	"fmt"
	"os"
	"path/filepath"

	"gopeft/train/report"
)

func ExampleOpenMetrics() {
	dir, err := os.MkdirTemp("", "report")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "metrics.csv")

	m, err := report.OpenMetrics(path, report.FromStart)
	if err != nil {
		fmt.Println(err)
		return
	}
	for step := 10; step <= 30; step += 10 {
		row := report.NewRow(step, float64(step)/20)
		row.TrainLoss = 7 / float64(step)
		if err := m.Write(row); err != nil {
			fmt.Println(err)
			return
		}
	}
	if err := m.Close(); err != nil {
		fmt.Println(err)
		return
	}

	// The checkpoint was written at step 20: what came later is dropped.
	m, err = report.OpenMetrics(path, 20)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	content, err := os.ReadFile(path)
	fmt.Printf("%s%v\n", content, err)
	// Output:
	// step,epoch,lr,train_loss,train_acc,val_loss,val_acc,samples_per_s,epoch_train_loss,epoch_train_acc
	// 10,0.5,,0.7,,,,,,
	// 20,1,,0.35,,,,,,
	// <nil>
}

func ExampleWriteTable() {
	results := []report.Result{
		{Method: "lora", TrainAcc: 0.95, ValAcc: 0.9, TestAcc: 0.891, Trainable: 739586, Total: 67694596, Seconds: 812, SamplesPerS: 6.2, PeakRSSMB: 1120},
		{Method: "full", TrainAcc: 0.99, ValAcc: 0.91, TestAcc: 0.902, Trainable: 66955010, Total: 66955010, Seconds: 1450, SamplesPerS: 3.5, PeakRSSMB: 1540},
	}
	if err := report.WriteTable(os.Stdout, results); err != nil {
		fmt.Println(err)
	}
	// Output:
	// method  train acc  val acc  test acc   trainable       total  seconds  samples/s  peak RSS MB
	// lora       0.9500   0.9000    0.8910     739,586  67,694,596      812       6.20         1120
	// full       0.9900   0.9100    0.9020  66,955,010  66,955,010     1450       3.50         1540
}
