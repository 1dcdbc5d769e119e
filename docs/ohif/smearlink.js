// For the app-config.js of a site's OHIF 3.12: append it, after window.config is set.
// docs/site-guide.md says why; tests/acceptance/test_ohif.py opens every study with it.

(() => {
  const OURS_FROM = 9001; // Series Number: below are the series of devices
  const LAST = ["SEG", "KO", "PR", "SR", "ANN"];
  const REDRAW_AFTER_MS = [500, 1000, 2000, 4000, 8000, 16000, 32000];

  const number = (series) => Number(series.SeriesNumber ?? series.seriesNumber ?? 0);
  const modality = (series) => series.Modality ?? series.modality;
  const words = (series) => series.SeriesDescription ?? series.description ?? "";
  const moment = (series) =>
    `${series.SeriesDate ?? series.seriesDate ?? series.instance?.SeriesDate ?? ""} ` +
    `${series.SeriesTime ?? series.seriesTime ?? series.instance?.SeriesTime ?? ""}`;
  const order = (one, other) => (one < other ? -1 : one > other ? 1 : 0);

  // The photographs first, then the newest version of every result. OHIF itself sorts images by
  // Series Number, in which a later version is higher, so the oldest would come first.
  function newestFirst(one, other) {
    const isOurs = (series) => number(series) >= OURS_FROM;
    return (
      order(LAST.includes(modality(one)), LAST.includes(modality(other))) ||
      order(isOurs(one), isOurs(other)) ||
      (isOurs(one) ? order(moment(other), moment(one)) : 0) ||
      order(number(one), number(other)) ||
      order(words(one), words(other))
    );
  }

  // OHIF draws a report's outlines when its picture is drawn, and not again when it learns a
  // moment later which outlines these are: on a busy machine they stayed away until a scroll.
  function drawAgain() {
    for (const engine of window.cornerstone?.getRenderingEngines() ?? []) engine.render();
  }
  for (const opening of ["dblclick", "drop"]) {
    window.addEventListener(
      opening,
      () => REDRAW_AFTER_MS.forEach((wait) => setTimeout(drawAgain, wait)),
      true,
    );
  }

  const own = window.config.customizationService ?? [];
  window.config.customizationService = [
    ...(Array.isArray(own) ? own : [own]),
    { sortingCriteria: { $set: newestFirst } },
  ];
})();
