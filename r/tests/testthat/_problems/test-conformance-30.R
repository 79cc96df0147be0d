# Extracted from test-conformance.R:30

# 
# Failed to extract test: 
# Failed to find test at line 30.
