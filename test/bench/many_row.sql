-- many_row.sql - one row of the table that one or twenty pipelines read.
INSERT INTO fan_src_1 SELECT nextval('fan_ids'), 1;
