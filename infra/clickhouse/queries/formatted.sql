-- How does ClickHouse itself write this statement?
SELECT formatQuerySingleLine({statement:String}) AS formatted
