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
package report
