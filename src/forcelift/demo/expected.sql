-- What the plan's rules must find in the flights database, counted by a way of its own: plain SQL on the source.
SELECT 'flights' AS table_name, 'rejected' AS what, count(*) AS row_count
FROM flights WHERE dest IS NOT NULL AND dest NOT IN (SELECT faa FROM airports)
UNION ALL
SELECT 'flights', 'emptied', count(*)
FROM flights
WHERE tailnum IS NOT NULL AND tailnum NOT IN (SELECT tailnum FROM planes) AND dest IN (SELECT faa FROM airports)
UNION ALL
SELECT 'flights', 'unknown_planes', count(*)
FROM flights WHERE tailnum IS NOT NULL AND tailnum NOT IN (SELECT tailnum FROM planes)
UNION ALL
SELECT 'weather', 'duplicate', CAST(coalesce(sum(copies - 1), 0) AS BIGINT)
FROM (SELECT count(*) AS copies FROM weather GROUP BY origin, year, month, day, hour);
