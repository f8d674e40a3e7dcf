"""Claims of papers: defined as data, run as ablations, judged with statistics."""
