-- many_row.sql - rows of the table that one or twenty pipelines read.
INSERT INTO fan_src_1 SELECT nextval('fan_ids'), 1 FROM generate_series(1, :rows);
