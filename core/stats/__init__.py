"""One of each statistic: rankings, the cluster bootstrap, intervals, and tests of significance."""
