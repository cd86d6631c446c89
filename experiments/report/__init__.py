"""What came out: results, their statistics, and pages, tables, figures and cards of them."""
