CREATE TABLE people (CODE VARCHAR(10) PRIMARY KEY, BOSS VARCHAR(10), TEAM VARCHAR(10));
INSERT INTO people VALUES
    ('ann', NULL, 'red'), ('bob', 'ann', 'red'), ('cid', 'bob', 'blue'), ('dot', 'dot', NULL),
    ('eve', 'nobody', 'blue'), ('fay', 'ann', 'nowhere'), ('gus', 'far-too-long-a-boss', 'blue'),
    ('hal-too-long', 'ann', 'red'), ('ida', 'hal-too-lo', 'red'), ('jim', 'HAL-TOO-LONG', 'red'), ('kay', 'ANN', ' blue ');
CREATE TABLE teams (CODE VARCHAR(10) PRIMARY KEY, LEADER VARCHAR(10));
INSERT INTO teams VALUES ('red', 'bob'), ('blue', 'cid'), ('grey', 'nobody'), ('idle', NULL);
