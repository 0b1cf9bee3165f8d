-- neighbours_tables.sql - what stands beside a healthy pipeline.
CREATE TABLE neighbour (order_id bigint PRIMARY KEY, quantity int NOT NULL)
	WITH (autovacuum_enabled = false);
CREATE TYPE neighbour_row AS (order_id bigint, quantity int);
CREATE FUNCTION healthy_neighbour(o orders) RETURNS SETOF neighbour_row LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN NEXT (o.order_id, o.quantity)::neighbour_row; END $$;
CREATE FUNCTION stopped_neighbour(o orders) RETURNS SETOF neighbour_row LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN NEXT (o.order_id, o.quantity)::neighbour_row; END $$;
CREATE FUNCTION poisoned_neighbour(o orders) RETURNS SETOF neighbour_row LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN NEXT (o.order_id, o.quantity / (o.product_id % 100))::neighbour_row; END $$;
CREATE FUNCTION broken_neighbour(o orders) RETURNS SETOF neighbour_row LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT o.order_id, x.quantity FROM missing_table x; END $$;
CREATE FUNCTION hanging_neighbour(o orders) RETURNS SETOF neighbour_row LANGUAGE plpgsql STABLE AS
$$ BEGIN
	IF o.product_id % 1000 = 0 THEN PERFORM pg_sleep(3600); END IF;
	RETURN NEXT (o.order_id, o.quantity)::neighbour_row;
END $$;
CREATE FUNCTION sleeping_neighbour(o orders) RETURNS SETOF neighbour_row LANGUAGE plpgsql STABLE AS
$$ BEGIN
	PERFORM pg_sleep(1);
	RETURN NEXT (o.order_id, o.quantity)::neighbour_row;
END $$;
