// Package report writes what a run leaves for people and programs to read:
// metrics.csv while it trains ([OpenMetrics]), TensorBoard events
// ([OpenEvents]), summary.json ([WriteSummary]), pictures of its curves
// ([PlotCurves]), and the table and picture that compare several runs
// ([WriteCompareCSV], [WriteCompareMarkdown], [WriteTable], [PlotCompare]).
//
//	log, err := report.OpenMetrics("runs/x/metrics.csv", report.FromStart)
//	if err != nil {
//		return err
//	}
//	defer log.Close()
//	row := report.NewRow(10, 0.1)
//	row.TrainLoss = 0.69
//	err = log.Write(row)
//
// A figure that was not measured is NaN: an empty cell in CSV, null in JSON, a
// dash in tables, left out of pictures.
//
// The package's own words:
//
//   - row: a line of metrics.csv. A run writes one every so many steps, with the
//     means over the steps since the last (train_loss, train_acc), and one at the
//     end of every epoch, with the validation's figures and the means over the
//     whole epoch (epoch_train_loss, epoch_train_acc);
//   - splits: one figure for each of the training, validation and test data;
//   - summary: the final figures of one run; result: a summary's line in a
//     comparison;
//   - panel: one of the diagrams side by side in a picture.
package report
